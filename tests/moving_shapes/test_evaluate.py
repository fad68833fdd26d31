import numpy as np
import pytest

from moving_shapes import MovingShapes
from moving_shapes.evaluate import as_plain, change_videos, measure, score_answers
from moving_shapes.train.tiny_model import build_tiny
from vidlada_hf.evaluation.statistics import wilson

EXAMPLES = list(MovingShapes("test", 42))


def test_right_answers_score_one_and_wrong_ones_zero():
    right = score_answers(EXAMPLES, [example.details.answers[1] for example in EXAMPLES])
    assert all(score.accuracy == 1 for score in right.values()) and right["all"].questions == 42
    wrong = score_answers(EXAMPLES, ["pink unicorn"] * 42)
    assert all(score.accuracy == 0 and score.low == 0 for score in wrong.values())
    assert wrong["caption"].facts_right == 0 and right["caption"].facts_right == right["caption"].facts
    assert sum(count for count, _, _ in right["caption"].by_facts.values()) == right["caption"].questions
    assert "facts" not in as_plain(right)["color"]


def test_a_caption_with_half_of_its_facts_counts_half():
    caption = next(e for e in MovingShapes("test", 200, types=("caption",)) if len(e.details.facts) == 4)
    score = score_answers([caption], [" ".join(caption.details.facts[:2])])["caption"]
    assert (score.right, score.facts_right, score.facts_stated, score.facts) == (0, 2, 2, 4)


@pytest.mark.parametrize(("right", "total"), [(0, 10), (5, 10), (10, 10), (950, 1000)])
def test_the_interval_holds_the_share(right, total):
    low, high = wilson(right, total)
    assert -1e-9 <= low <= right / total <= high <= 1 + 1e-9
    assert (high - low) < 4 * (0.25 / total) ** 0.5


def test_known_interval():
    assert wilson(95, 100) == pytest.approx((0.8882, 0.9785), abs=1e-3)


def test_controls_change_the_video_and_nothing_else():
    for control in ("gray", "other", "shuffled"):
        changed = list(change_videos(EXAMPLES, control))
        for before, after in zip(EXAMPLES, changed, strict=True):
            assert not np.array_equal(before.frames, after.frames) or control == "shuffled"
            assert (before.question, before.answer, before.details) == (after.question, after.answer, after.details)
            assert before.frames.shape == after.frames.shape
        if control == "shuffled":
            assert all(
                sorted(f.tobytes() for f in a.frames) == sorted(f.tobytes() for f in b.frames)
                for a, b in zip(EXAMPLES, changed, strict=True)
            )
    with pytest.raises(ValueError, match="There is no control 'grey': pass one of 'none', 'gray'"):
        list(change_videos(EXAMPLES, "grey"))


def test_an_untrained_model_is_measured_too():
    model, processor = build_tiny()
    scores = measure(model.eval(), processor, list(MovingShapes("test", 4)), batch_size=3, max_new_tokens=8)
    assert scores["all"].questions == 4
