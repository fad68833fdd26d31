"""Facts about shapes, one sentence each, and the intervals of the clip that show them.

A caption is the facts of all shapes in reading order. Each sentence names its shape, so that a caption can be scored
fact by fact, as a set.
"""

import re
from dataclasses import dataclass

import numpy as np

from .scenes.scene import BEAT, COLORS, MOTIONS, SHAPES, MovingShape, Scene
from .vocabulary import NUMBERS, ORDINALS, words

Interval = tuple[float, float]


@dataclass(frozen=True)
class Fact:
    """A sentence, and its evidence: intervals of the clip, fractions, each of which must be sampled at least once. An
    end of 1 is included."""

    sentence: str
    evidence: tuple[Interval, ...]


def is_covered(evidence: tuple[Interval, ...], times: np.ndarray) -> bool:
    """Whether `times` (T,) sample each interval."""
    return all(bool(((times >= start) & ((times < end) | (end >= 1))).any()) for start, end in evidence)


def shape_evidence(shape: MovingShape) -> tuple[Interval, ...]:
    """Each visit of a shape; of one that changes color, the times of either color."""
    if shape.change_time is None:
        return tuple((span.start, span.end) for span in shape.spans)
    (span,) = shape.spans
    return (span.start, shape.change_time), (shape.change_time, span.end)


def scene_evidence(scene: Scene) -> tuple[Interval, ...]:
    """`shape_evidence` of all shapes."""
    return tuple(interval for shape in scene.shapes for interval in shape_evidence(shape))


def absences(shape: MovingShape) -> tuple[Interval, ...]:
    """The intervals between its visits."""
    return tuple((before.end, after.start) for before, after in zip(shape.spans, shape.spans[1:], strict=False))


def has_returning_shapes(scene: Scene) -> bool:
    """Whether the scene is of a kind in which shapes come back: the facts then say how often each appears."""
    return scene.kind in ("reappearances", "sequences", "groups")


def motion_evidence(shape: MovingShape) -> tuple[Interval, ...]:
    """The first and the last beat of a shape's only visit: most of its path lies between."""
    (span,) = shape.spans
    return (span.start, span.start + BEAT), (span.end - BEAT, span.end)


def order_evidence(scene: Scene) -> tuple[Interval, ...]:
    """The intervals between appearances: the order is known if each is sampled."""
    starts = sorted({shape.appears for shape in scene.shapes})
    return tuple(zip(starts, [*starts[1:], 1.0], strict=True))


def motion_clause(motion: str) -> str:
    """The predicate: "moves left", "stays still"."""
    return "stays still" if motion == "still" else f"moves {motion}"


def facts_of(shape: MovingShape, scene: Scene) -> list[Fact]:
    """The facts about one shape of a scene, one to four, in the order of a caption."""
    name, facts = f"the {shape.name}", []
    if has_returning_shapes(scene):
        number = len(shape.spans)
        sentence = f"{name} appears {NUMBERS[number - 1]} time{'s' * (number > 1)}."
        return [Fact(sentence, shape_evidence(shape) + absences(shape))]
    index = scene.shapes.index(shape)
    if shape.appears > 0 or shape.motion is None or scene.kind == "many_events":
        facts.append(Fact(f"{name} appears {ORDINALS[index]}.", shape_evidence(shape) + order_evidence(scene)))
    if shape.motion is not None:
        facts.append(Fact(f"{name} {motion_clause(shape.motion)}.", motion_evidence(shape)))
    if shape.new_color is not None:
        facts.append(Fact(f"{name} turns {shape.new_color}.", shape_evidence(shape)))
    if shape.disappears < 1:
        facts.append(Fact(f"{name} disappears.", (*shape_evidence(shape), (shape.disappears, 1.0))))
    return facts


def caption_of(scene: Scene) -> list[Fact]:
    """All facts of a scene, in reading order."""
    return [fact for shape in scene.shapes for fact in facts_of(shape, scene)]


def _one_of(*choices: str) -> str:
    return f"(?:{'|'.join(choices)})"


_TIMES = (f"{number} time{'s' * (i > 0)}" for i, number in enumerate(NUMBERS))
_PREDICATE = _one_of(
    f"appears {_one_of(*ORDINALS, *_TIMES)}",
    *(motion_clause(motion) for motion in MOTIONS),
    f"turns {_one_of(*COLORS)}",
    "disappears",
)
_SENTENCE = re.compile(f"the {_one_of(*COLORS)} {_one_of(*SHAPES)} {_PREDICATE}")


def is_sentence(sentence: str) -> bool:
    """Whether a sentence, as `split_facts` gives it, is a fact of some scene; its words in another order are none."""
    return _SENTENCE.fullmatch(sentence) is not None


def split_facts(text: str) -> list[str]:
    """The sentences of a caption, in normal form without full stop, empty ones left out."""
    return [sentence.strip() for sentence in " ".join(words(text)).split(".") if sentence.strip()]


__all__ = [
    "Fact",
    "Interval",
    "absences",
    "caption_of",
    "facts_of",
    "has_returning_shapes",
    "is_covered",
    "is_sentence",
    "motion_clause",
    "motion_evidence",
    "order_evidence",
    "scene_evidence",
    "shape_evidence",
    "split_facts",
]
