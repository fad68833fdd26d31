"""A question about a scene with its answer, and the parts that questions of several types are made of."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..facts import Interval, is_covered
from ..scenes.scene import MovingShape, Scene

STYLES = ("compact", "sentence")
HELPER_TYPES = ("position", "direction", "pick")
CHOICE_TYPES = ("choice", "pick")
LONG_TYPES = ("caption", "detail")  # answered in sentences, one for each fact


@dataclass(frozen=True)
class Question:
    """A question about a scene.

    Args:
        type: of `QUESTION_TYPES`.
        questions: its compact and its full wording.
        answers: its compact and its full answer; the same for captions.
        facts: the sentences of the full answer.
        evidence: intervals of the clip, each of which must be sampled at least once; an end of 1 is included.
        shapes: indices into `scene.shapes` of those that it is about.
    """

    type: str
    questions: tuple[str, str]
    answers: tuple[str, str]
    facts: tuple[str, ...]
    evidence: tuple[Interval, ...]
    shapes: tuple[int, ...] = ()

    def question(self, style: str = "sentence") -> str:
        """The wording of that style."""
        return self.questions[check_style(style)]

    def answer(self, style: str = "compact") -> str:
        """The answer of that style."""
        return self.answers[check_style(style)]

    @property
    def training_answer(self) -> str:
        """The compact answer; of a multiple choice the letter with its option.

        The letter follows from the option. Where both are masked, the option is learned first, and then its letter.
        """
        return self.answers[1].removesuffix(".") if self.type in CHOICE_TYPES else self.answers[0]

    def is_determined(self, times: np.ndarray) -> bool:
        """Whether frames at `times` (T,) show all that the answer depends on."""
        return is_covered(self.evidence, times)


def check_style(style: str) -> int:
    """The index of a style in `STYLES`; ValueError for an unknown one."""
    if style not in STYLES:
        raise ValueError(f"There is no style {style!r}: pass one of {', '.join(map(repr, STYLES))}.")
    return STYLES.index(style)


def make_question(
    scene: Scene,
    type: str,
    question: tuple[str, str],
    answer: tuple[str, str],
    evidence: Sequence[Interval],
    *shapes: MovingShape,
) -> Question:
    """A question whose full answer is one fact, about `shapes` of the scene."""
    indices = tuple(scene.shapes.index(shape) for shape in shapes)
    return Question(type, question, answer, (answer[1],), tuple(evidence), indices)


def pick_shape(rng: np.random.Generator, shapes: Sequence[MovingShape]) -> MovingShape | None:
    """A random one; None if there are none."""
    return shapes[int(rng.integers(len(shapes)))] if shapes else None


def has_unique_names(scene: Scene) -> bool:
    """Whether a color or a shape alone names one of them: not so in scenes of two groups."""
    return scene.kind != "groups"


def yes_or_no(is_true: bool, subject: str, yes: str, no: str) -> tuple[str, str]:
    """An answer and its sentence: "yes, the circle disappears."."""
    return ("yes", f"yes, {subject} {yes}.") if is_true else ("no", f"no, {subject} {no}.")


__all__ = [
    "CHOICE_TYPES",
    "HELPER_TYPES",
    "LONG_TYPES",
    "STYLES",
    "Question",
    "check_style",
    "has_unique_names",
    "make_question",
    "pick_shape",
    "yes_or_no",
]
