import inspect

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidlada_hf.modeling.generation_config_vidlada import VidLaDAGenerationConfig
from vidlada_hf.modeling.unmasking_vidlada import (
    UNMASKING_STRATEGIES,
    EntropyBoundUnmasking,
    FactorUnmasking,
    FixedQuotaUnmasking,
    KLASSUnmasking,
    LocalUnmasking,
    ProphetUnmasking,
    ThresholdUnmasking,
    WINOUnmasking,
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


def test_local_relaxes_only_near_an_anchor():
    confidence, eligible, logits = probabilities([0.95, 0.8, 0.7, 0.8, 0.5], [0.85, 0.8, 0.8, 0.8, 0.85])
    chosen = LocalUnmasking(0.75, 0.9, radius=2).select(confidence, eligible, torch.tensor([1, 1]), logits)
    assert chosen.tolist() == [[True, True, False, False, False], [True, False, False, False, False]]


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=10))
def test_local_without_relaxing_is_the_threshold_and_with_a_wide_radius_the_relaxed_one(values):
    confidence, eligible, logits = probabilities(values)
    strict, relaxed = (ThresholdUnmasking(p).select(confidence, eligible, ONE, logits) for p in (0.9, 0.6))
    assert torch.equal(LocalUnmasking(0.9, 0.9).select(confidence, eligible, ONE, logits), strict)
    wide = LocalUnmasking(0.6, 0.9, radius=10).select(confidence, eligible, ONE, logits)
    assert torch.equal(wide, relaxed if max(values) >= 0.9 else strict)


def test_klass_waits_until_a_prediction_has_stayed():
    confidence, eligible, logits = probabilities([0.7, 0.7, 0.5, 0.55])
    moved = probabilities([0.7, 0.9, 0.5, 0.55])[2]
    rule = KLASSUnmasking(0.6, 0.01, history=2).start()
    rule.on_block_start(8)
    nothing = torch.tensor([0])
    steps = (logits, moved, moved, moved)
    chosen = [rule.select(confidence, eligible, nothing, step)[0].tolist() for step in steps]
    assert chosen[:2] == [[False] * 4] * 2
    assert chosen[2] == [True, False, False, False]  # the second has stayed for one step only
    assert chosen[3] == [True, True, False, False]
    rule.on_block_start(8)
    assert not rule.select(confidence, eligible, nothing, moved).any()


@given(st.lists(st.lists(st.floats(-4, 4), min_size=3, max_size=3), min_size=2, max_size=2))
def test_klass_measures_the_divergence_from_the_step_before(rows):
    before, now = (torch.tensor([[row]]) for row in rows)
    divergence = torch.distributions.kl_divergence(
        *(torch.distributions.Categorical(logits=logits) for logits in (now, before))
    ).item()
    suppressed = [torch.cat([logits, torch.full((1, 1, 1), -torch.inf)], dim=-1) for logits in (before, now)]
    for bound, stays in ((divergence * 1.01 + 1e-5, True), (divergence * 0.99 - 1e-5, False)):
        if bound <= 0:
            continue
        rule = KLASSUnmasking(0.1, bound, history=1).start()
        certain, eligible = torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool)
        chosen = [rule.select(certain, eligible, torch.tensor([0]), logits).item() for logits in suppressed]
        assert chosen == [False, stays]


def test_prophet_asks_for_less_as_the_block_proceeds():
    logits = torch.tensor([[[4.0, 0.0], [2.0, 0.0]], [[9.0, 0.0], [9.0, 0.0]]])  # leads of 3 and 9 in the mean
    confidence, eligible = logits.softmax(-1).amax(-1), torch.ones(2, 2, dtype=torch.bool)
    rule = ProphetUnmasking(6.0).start()
    rule.on_block_start(6)
    steps = [rule.select(confidence, eligible, torch.tensor([1, 1]), logits).tolist() for _ in range(6)]
    assert steps[:4] == [[[True, False], [True, True]]] * 4  # 6, then 4
    assert steps[4:] == [[[True, True], [True, True]]] * 2  # then 2


def test_prophet_looks_at_masked_positions_only():
    logits = torch.tensor([[[1.0, 0.0], [99.0, 0.0]]])
    eligible = torch.tensor([[True, False]])
    chosen = ProphetUnmasking(5.0).start().select(logits.softmax(-1).amax(-1), eligible, torch.tensor([0]), logits)
    assert not chosen.any()


def test_wino_takes_back_what_is_doubted_most_but_less_than_it_commits():
    rule = WINOUnmasking(0.6, 0.9)
    confidence, eligible, logits = probabilities([0.65, 0.5, 0.6, 0.9])
    committed = rule.select(confidence, eligible, ONE, logits)
    assert committed.tolist() == [[True, False, True, True]]
    belief = torch.tensor([[0.7, 0.95, torch.inf, 0.2, 0.5]], dtype=torch.float64)
    doubtable = belief.isfinite()
    taken = [rule.take_back(belief, doubtable, committed, ONE * quota)[0].tolist() for quota in range(5)]
    assert taken[0] == [True, False, False, True, True]  # not what has 0.95
    assert taken[1] == [False, False, False, True, True]
    assert taken[2] == [False, False, False, True, False]
    assert taken[3] == taken[4] == [False] * 5


def test_other_rules_take_nothing_back():
    belief, positions = torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool)
    for build, _ in UNMASKING_STRATEGIES.values():
        rule = build()
        assert rule.looks_again == rule.take_back(belief, positions, positions, ONE).any()


def test_what_a_call_keeps_is_its_own():
    logits = torch.zeros(1, 2, 3)
    confidence, eligible = torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool)
    rule = KLASSUnmasking(history=1)
    first = rule.start()
    for _ in range(2):
        chosen = first.select(confidence, eligible, torch.tensor([0]), logits)
    assert chosen.all()
    assert not rule.start().select(confidence, eligible, torch.tensor([0]), logits).any()
    counting = ProphetUnmasking(3.0).start()
    counting.on_block_start(1)
    counting.select(confidence, eligible, ONE, logits)
    assert counting.start() is not counting and FixedQuotaUnmasking().start() is not None


def test_what_is_not_eligible_is_never_chosen():
    confidence, eligible, logits = probabilities([0.99, 0.98, 0.97])
    eligible[0, 1] = False
    confidence = confidence.masked_fill(~eligible, -torch.inf)
    for build, _ in UNMASKING_STRATEGIES.values():
        rule = build().start()
        for _ in range(3):
            rule.select(confidence, eligible, ONE * 3, logits)
        assert not rule.select(confidence, eligible, ONE * 3, logits)[0, 1]


def test_fields_of_the_generation_config_reach_the_rule():
    class Settings:
        unmask_threshold = 0.5
        unmask_relaxed_threshold = 0.25

    assert resolve_unmasking("threshold", Settings()).threshold == 0.5
    assert resolve_unmasking("threshold").threshold == 0.9
    local = resolve_unmasking("local", Settings())
    assert (local.relaxed_threshold, local.threshold) == (0.25, 0.5)


def test_defaults_of_rules_are_those_of_the_generation_config():
    for build, fields in UNMASKING_STRATEGIES.values():
        names = list(inspect.signature(build).parameters.values())
        assert [names[i].default for i in range(len(fields))] == [VidLaDAGenerationConfig.FIELDS[f] for f in fields]


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
