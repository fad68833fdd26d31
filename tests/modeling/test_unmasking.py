import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidlada_hf.modeling.unmasking_vidlada import (
    EntropyBoundUnmasking,
    FactorUnmasking,
    FixedQuotaUnmasking,
    ThresholdUnmasking,
    num_transfer_tokens,
    resolve_unmasking,
)

from ..golden_model import load_json


def test_schedules_are_the_recorded_ones(golden):
    tables = load_json(golden, "tables")
    for row in tables["num_transfer_tokens"]:
        assert num_transfer_tokens(torch.tensor([row["masked"]]), row["steps"])[0].tolist() == row["out"]
    batch = tables["num_transfer_tokens_batch"]
    assert num_transfer_tokens(torch.tensor(batch["masked"]), batch["steps"]).tolist() == batch["out"]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.integers(1, 20))
def test_a_schedule_commits_all_and_never_grows(masked, steps):
    schedule = num_transfer_tokens(torch.tensor(masked), steps)
    assert schedule.sum(-1).tolist() == masked
    assert (schedule.diff(dim=-1) <= 0).all() and (schedule.amax(-1) - schedule.amin(-1) <= 1).all()


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=16),
    st.integers(0, 20),
)
def test_the_quota_takes_the_most_confident_eligible_positions(positions, quota):
    confidence = torch.tensor([[c for c, _ in positions]])
    eligible = torch.tensor([[e for _, e in positions]])
    chosen = FixedQuotaUnmasking().select(confidence, eligible, torch.tensor([quota]), torch.empty(0))
    assert not (chosen & ~eligible).any()
    assert chosen.sum() == min(quota, int(eligible.sum()))
    left = eligible & ~chosen
    if chosen.any() and left.any():
        assert confidence[chosen].min() >= confidence[left].max()


def probabilities(*rows: list[float]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Confidence, eligible (all), and logits over two tokens with these confidences."""
    confidence = torch.tensor(rows, dtype=torch.float64)
    logits = torch.stack([confidence, 1 - confidence], dim=-1).log()
    return confidence, torch.ones_like(confidence, dtype=torch.bool), logits


ONE = torch.tensor([1])


def test_a_threshold_takes_all_that_reach_it_and_at_least_the_quota():
    confidence, eligible, logits = probabilities([0.95, 0.5, 0.9, 0.6])
    assert ThresholdUnmasking(0.9).select(confidence, eligible, ONE, logits).tolist() == [[True, False, True, False]]
    assert ThresholdUnmasking(0.99).select(confidence, eligible, ONE, logits).tolist() == [[True, False, False, False]]
    assert ThresholdUnmasking(0.99).select(confidence, eligible, ONE * 2, logits).tolist() == [
        [True, False, True, False]
    ]


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=10), st.floats(0.1, 4))
def test_a_factor_takes_the_largest_n_that_passes(values, factor):
    confidence, eligible, logits = probabilities(values)
    ordered = sorted(values, reverse=True)
    passing = [n for n in range(1, len(values) + 1) if ordered[n - 1] >= 1 - factor / (n + 1)]
    chosen = FactorUnmasking(factor).select(confidence, eligible, ONE, logits)
    assert chosen.sum() == max(1, max(passing, default=0))
    assert sorted(confidence[chosen].tolist(), reverse=True) == ordered[: int(chosen.sum())]


@given(st.lists(st.floats(0.5, 0.999), min_size=1, max_size=10), st.floats(0.01, 3))
def test_an_entropy_bound_holds_and_one_more_would_break_it(values, bound):
    confidence, eligible, logits = probabilities(values)
    entropy = torch.distributions.Categorical(logits=logits).entropy()[0].sort().values
    chosen = EntropyBoundUnmasking(bound).select(confidence, eligible, ONE, logits)
    count = int(chosen.sum())
    assert entropy[: count - 1].sum() <= bound + 1e-9
    assert count == len(values) or entropy[:count].sum() > bound - 1e-9


def test_what_is_not_eligible_is_never_chosen():
    confidence, eligible, logits = probabilities([0.99, 0.98, 0.97])
    eligible[0, 1] = False
    confidence = confidence.masked_fill(~eligible, -torch.inf)
    for rule in (FixedQuotaUnmasking(), ThresholdUnmasking(), FactorUnmasking(), EntropyBoundUnmasking(9.0)):
        assert not rule.select(confidence, eligible, ONE * 3, logits)[0, 1]


def test_fields_of_the_generation_config_reach_the_rule():
    class Settings:
        unmask_threshold = 0.5

    assert resolve_unmasking("threshold", Settings()).threshold == 0.5
    assert resolve_unmasking("threshold").threshold == 0.9


def test_each_row_has_its_own_quota():
    confidence = torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.2, 0.1]])
    chosen = FixedQuotaUnmasking().select(
        confidence, torch.ones(2, 3, dtype=torch.bool), torch.tensor([1, 2]), torch.empty(0)
    )
    assert chosen.tolist() == [[False, True, False], [True, True, False]]


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="'quota'"):
        resolve_unmasking("best")
    with pytest.raises(ValueError, match="must be a name .* or an object of an UnmaskingStrategy, got int"):
        resolve_unmasking(3)
    with pytest.raises(ValueError, match="got the class ThresholdUnmasking"):
        resolve_unmasking(ThresholdUnmasking)


def test_a_threshold_is_a_probability():
    with pytest.raises(ValueError, match="`unmask_threshold` is a probability, of at most 1, got 1.5"):
        ThresholdUnmasking(1.5)
