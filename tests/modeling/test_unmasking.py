import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidlada_hf.modeling.unmasking_vidlada import FixedQuota, quota_schedule, resolve_unmasking

from .golden_model import load_json


def test_schedules_are_the_recorded_ones(golden):
    tables = load_json(golden, "tables")
    for row in tables["num_transfer_tokens"]:
        assert quota_schedule(torch.tensor([row["masked"]]), row["steps"])[0].tolist() == row["out"]
    batch = tables["num_transfer_tokens_batch"]
    assert quota_schedule(torch.tensor(batch["masked"]), batch["steps"]).tolist() == batch["out"]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.integers(1, 20))
def test_a_schedule_commits_all_and_never_grows(masked, steps):
    schedule = quota_schedule(torch.tensor(masked), steps)
    assert schedule.sum(-1).tolist() == masked
    assert (schedule.diff(dim=-1) <= 0).all() and (schedule.amax(-1) - schedule.amin(-1) <= 1).all()


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=16),
    st.integers(0, 20),
)
def test_the_quota_takes_the_most_confident_eligible_positions(positions, quota):
    confidence = torch.tensor([[c for c, _ in positions]])
    eligible = torch.tensor([[e for _, e in positions]])
    chosen = FixedQuota().select(confidence, eligible, torch.tensor([quota]), torch.empty(0))
    assert not (chosen & ~eligible).any()
    assert chosen.sum() == min(quota, int(eligible.sum()))
    left = eligible & ~chosen
    if chosen.any() and left.any():
        assert confidence[chosen].min() >= confidence[left].max()


def test_each_row_has_its_own_quota():
    confidence = torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.2, 0.1]])
    chosen = FixedQuota().select(confidence, torch.ones(2, 3, dtype=torch.bool), torch.tensor([1, 2]), torch.empty(0))
    assert chosen.tolist() == [[False, True, False], [True, True, False]]


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="'quota'"):
        resolve_unmasking("best")
    with pytest.raises(ValueError, match="must be a name .* or an UnmaskingStrategy, got int"):
        resolve_unmasking(3)
