import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vidlada_hf.modeling.generation_vidlada import Canvas, VidLaDAGenerationConfig
from vidlada_hf.modeling.stopping_vidlada import StopRules, first_occurrence, first_text


class Letters:
    """A tokenizer of words: token i decodes to the i-th word."""

    words = ("he", "llo", " wor", "ld.", "!", "o")

    def decode(self, ids: list[int]) -> str:
        return "".join(self.words[i] for i in ids)


def canvas(ids: list[int], masked: list[bool] | None = None) -> Canvas:
    ids_ = torch.tensor([ids])
    return Canvas(ids_, torch.tensor([masked or [False] * len(ids)]), torch.tensor([len(ids)]), 0)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=10), st.lists(st.integers(0, 2), min_size=1, max_size=3))
def test_first_occurrence_is_what_a_search_from_the_left_finds(ids, sequence):
    if len(sequence) > len(ids):
        return
    found = [i for i in range(len(ids) - len(sequence) + 1) if ids[i : i + len(sequence)] == sequence]
    place = first_occurrence(torch.tensor([ids]), torch.zeros(1, len(ids), dtype=torch.bool), sequence)
    assert place.item() == (found[0] if found else len(ids))


def test_a_stop_counts_only_on_committed_tokens():
    ids, masked = torch.tensor([[5, 6, 5, 6]]), torch.tensor([[False, True, False, False]])
    assert first_occurrence(ids, masked, [5, 6]).item() == 2


@pytest.mark.parametrize(
    ("strings", "place"),
    [(["world"], 2), (["lo wo"], 1), (["!"], 4), (["hello"], 0), (["xyz"], 5), (["!", "ld"], 3), (["."], 3)],
)
def test_text_is_found_across_tokens(strings, place):
    assert first_text([0, 1, 2, 3, 4], [True] * 5, strings, Letters()) == place


def test_text_is_not_found_across_a_mask():
    assert first_text([0, 1, 2, 3, 4], [True, True, False, True, True], ["world"], Letters()) == 5
    assert first_text([0, 1, 2, 3, 4], [False, True, True, True, True], ["world"], Letters()) == 2


def test_the_earliest_stop_wins_and_never_moves_back():
    rules = StopRules([[9], [7, 8]], [], None)
    state = canvas([1, 2, 3, 9], [False, False, False, False])
    rules.update(state)
    assert state.stop.tolist() == [3]
    state.ids[0, :2] = torch.tensor([7, 8])
    rules.update(state)
    assert state.stop.tolist() == [0]


def test_the_official_search_forgets_all_but_the_first_stop():
    rules = StopRules([[9], [7]], [], None, first_only=True)
    state = canvas([1, 2, 3, 9])
    rules.update(state)
    state.ids[0, 0] = 7
    rules.update(state)
    assert state.stop.tolist() == [3]


def test_a_stop_longer_than_the_canvas_is_never_found():
    state = canvas([1, 2])
    StopRules([[1, 2, 3]], [], None).update(state)
    assert state.stop.tolist() == [2]


def test_ids_may_be_one_a_list_or_sequences():
    for eos in (5, [5], (5,)):
        assert StopRules.build(VidLaDAGenerationConfig(eos_token_id=eos), [], None).sequences == [[5]]
    config = VidLaDAGenerationConfig(eos_token_id=[5], stop_token_ids=[6, [7, 8]])
    assert StopRules.build(config, [], None).sequences == [[5], [6], [7, 8]]
