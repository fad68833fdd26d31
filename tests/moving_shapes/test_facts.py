import pytest

from moving_shapes import MovingShapes
from moving_shapes.facts import is_sentence, split_facts
from moving_shapes.questions import LONG_TYPES


def test_every_fact_of_a_scene_is_a_sentence() -> None:
    told = [s for example in MovingShapes("test", 200, types=LONG_TYPES) for s in split_facts(example.answer)]
    assert len(told) > 200 and all(map(is_sentence, told))


@pytest.mark.parametrize(
    "broken",
    [
        "the red moves left",
        "the red circle circle moves left",
        "the red circle appears two time",
        "the red circle moves still",
        "the red circle",
        "red circle disappears",
        "the red circle disappears the red circle disappears",
    ],
)
def test_words_in_another_order_are_none(broken) -> None:
    assert not is_sentence(broken)
