"""What a wrong answer says instead, by question type."""

import re
from collections.abc import Callable

from .dataset import Example
from .scenes.scene import COLORS, SHAPES
from .scenes.splits import get_split

_NUMBERS = ("none", "one", "two", "three", "four", "five", "six")


def is_held_out(example: Example) -> bool:
    """Whether a shape that the question is about has a combination that training does not contain, at any time; where
    it is about no single shape, whether one of the video has."""
    held_out = get_split(example.scene.split).held_out
    indices = example.details.shapes or range(len(example.scene.shapes))
    return any(combination in held_out for i in indices for combination in example.scene.shapes[i].combinations)


def wrong_color(example: Example, answer: str) -> str:
    """Whose color it is."""
    stated = next((color for color in COLORS if color in answer), None)
    colors = [{color for color, _ in shape.combinations} for shape in example.scene.shapes]
    own = {color for index in example.details.shapes[:1] for color in colors[index]}
    if stated is None:
        return "no color"
    if stated in own:
        return "its color at another time"
    return "another shape's color" if any(stated in of_shape for of_shape in colors) else "a color that is not there"


def wrong_shape(example: Example, answer: str) -> str:
    """Whether it is in the video."""
    stated = next((shape for shape in SHAPES if shape in answer), None)
    if stated is None:
        return "no shape"
    in_video = any(shape.shape == stated for shape in example.scene.shapes)
    return "another shape" if in_video else "a shape that is not there"


def wrong_number(example: Example, answer: str) -> str:
    """How far off it is."""
    stated, right = (
        next((n for n, word in enumerate(_NUMBERS) if word in text), None) for text in (answer, example.answer)
    )
    if stated is None or right is None:
        return "no number"
    return {-1: "one too few", 1: "one too many"}.get(stated - right, "further off")


def wrong_yes_or_no(example: Example, answer: str) -> str:
    return "yes for no" if "yes" in answer else "no for yes"


def wrong_choice(example: Example, answer: str) -> str:
    """Whether the option is wrong, or its letter."""
    options = {word.lower(): letter.lower() for letter, word in re.findall(r"\((\w)\) (\w+)", example.question)}
    letter, word = re.search(r"\((\w)\)", answer), next((word for word in options if word in answer.split()), None)
    if word is None or letter is None:
        return "no option"
    if options[word] == example.answer.lower().strip("()"):
        return "the right word, another letter"
    return "a wrong word" if options[word] == letter[1] else "a wrong word, another letter"


# question type -> (example, wrong answer in lower case) -> what is wrong with it
MISTAKES: dict[str, Callable[[Example, str], str]] = {
    "color": wrong_color,
    "start_color": wrong_color,
    "end_color": wrong_color,
    "when": wrong_color,
    "shape": wrong_shape,
    "mover": wrong_shape,
    "distinct": wrong_number,
    "appearances": wrong_number,
    "disappearance": wrong_yes_or_no,
    "again": wrong_yes_or_no,
    "choice": wrong_choice,
}

__all__ = ["MISTAKES", "is_held_out"]
