import pytest

from vidlada_hf.evaluation.lmms.batches import Prompt, plan_batches


def prompts(*about: tuple[str | None, int]) -> list[Prompt]:
    """Prompts about videos, each with a canvas of so many tokens."""
    return [Prompt(i, [], {"max_new_tokens": length}, video, str(i)) for i, (video, length) in enumerate(about)]


def test_a_videos_prompts_are_together_and_others_fill_batches() -> None:
    given = prompts(("a", 2), ("b", 2), (None, 2), ("a", 2), ("c", 2), ("a", 8), (None, 2))
    batches = plan_batches(given, 2)
    assert [([p.place for p in batch.prompts], batch.shares_video) for batch in batches] == [
        ([0, 3], True),
        ([1, 2], False),
        ([4, 6], False),
        ([5], False),
    ]
    assert plan_batches(prompts(*[("a", 2)] * 5), 2)[0].parts(2) == [slice(0, 2), slice(2, 4), slice(4, 6)]


def test_to_share_a_video_each_has_batches_of_its_own() -> None:
    assert [len(batch.prompts) for batch in plan_batches(prompts(("a", 2), ("b", 2), ("a", 2)), 4, True)] == [2, 1]
    with pytest.raises(ValueError, match="`share_video` is for questions about one video file each"):
        plan_batches(prompts(("a", 2), (None, 2)), 4, True)
