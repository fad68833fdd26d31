import pytest

from moving_shapes import MovingShapes
from moving_shapes.mistakes import MISTAKES, is_held_out
from moving_shapes.scenes.scene import COLORS, SHAPES
from moving_shapes.scoring import is_right

EXAMPLES = {example.type: example for example in MovingShapes("test", len(MISTAKES), types=tuple(MISTAKES))}


@pytest.mark.parametrize("type", ["color", "start_color", "end_color", "when"])
def test_wrong_colors(type: str) -> None:
    example = EXAMPLES[type]
    asked, shapes = example.scene.shapes[example.details.shapes[0]], example.scene.shapes
    visible = {color for shape in shapes for color, _ in shape.combinations}
    for color in COLORS:
        if color not in visible:
            assert MISTAKES[type](example, color) == "a color that is not there"
        elif color not in {color for color, _ in asked.combinations}:
            assert MISTAKES[type](example, color) == "another shape's color"
        elif not is_right(example.details, color):
            assert MISTAKES[type](example, color) == "its color at another time"
    assert MISTAKES[type](example, "unicorn") == "no color"


@pytest.mark.parametrize("type", ["shape", "mover"])
def test_wrong_shapes(type: str) -> None:
    example = EXAMPLES[type]
    visible = {shape.shape for shape in example.scene.shapes}
    for shape in SHAPES:
        expected = "another shape" if shape in visible else "a shape that is not there"
        assert MISTAKES[type](example, f"the red shape is a {shape}.") == expected
    assert MISTAKES[type](example, "red") == "no shape"


def test_wrong_numbers() -> None:
    example = next(e for e in MovingShapes("test", 50, types=("distinct",)) if e.answer == "three")
    given = {"two": "one too few", "four": "one too many", "five": "further off", "many": "no number"}
    assert {text: MISTAKES["distinct"](example, text) for text in given} == given


def test_wrong_choices_and_answers_of_yes_or_no() -> None:
    example = next(e for e in MovingShapes("test", 50, types=("choice",)) if e.answer == "(b)")
    words = [part.split()[1] for part in example.question.lower().split("(")[1:]]
    other = words[0]
    assert MISTAKES["choice"](example, f"(a) {other}") == "a wrong word"
    assert MISTAKES["choice"](example, f"(c) {other}") == "a wrong word, another letter"
    assert MISTAKES["choice"](example, f"(a) {words[1]}") == "the right word, another letter"
    assert MISTAKES["choice"](example, "(a)") == "no option"
    assert MISTAKES["again"](EXAMPLES["again"], "yes, it is back") == "yes for no"
    assert MISTAKES["disappearance"](EXAMPLES["disappearance"], "no") == "no for yes"


def test_held_out_combinations_are_those_of_the_split() -> None:
    held_out = [is_held_out(example) for example in MovingShapes("test", 40, types=("color",))]
    assert 0 < sum(held_out) < 40
    assert not any(is_held_out(example) for example in MovingShapes("train", 20, types=("color",)))
