"""What is true of a shape, a sentence a fact, and which moments of the clip show it.

A caption is the facts of all shapes in reading order. Every sentence names its shape, so that a caption can be scored
fact by fact, as a set.
"""

from dataclasses import dataclass

import numpy as np

from .scenes.scene import BEAT, MovingShape, Scene
from .vocabulary import NUMBERS, ORDINALS, words

Interval = tuple[float, float]


@dataclass(frozen=True)
class Fact:
    """A sentence, and the intervals of the clip (fractions; an end of 1 is included) that must each be sampled once."""

    sentence: str
    evidence: tuple[Interval, ...]


def is_shown(evidence: tuple[Interval, ...], times: np.ndarray) -> bool:
    """Whether sampling at `times` (T,) catches every interval."""
    return all(bool(((times >= start) & ((times < end) | (end >= 1))).any()) for start, end in evidence)


def seen(shape: MovingShape) -> tuple[Interval, ...]:
    """Every stay of a shape, and with a change of color each color of it."""
    stays = [(span.start, span.end) for span in shape.spans]
    if shape.turn_time is not None:
        (start, end) = stays[0]
        stays = [(start, shape.turn_time), (shape.turn_time, end)]
    return tuple(stays)


def gaps_of(shape: MovingShape) -> tuple[Interval, ...]:
    """The times between its stays."""
    return tuple((before.end, after.start) for before, after in zip(shape.spans, shape.spans[1:], strict=False))


def has_comings(scene: Scene) -> bool:
    """Whether the scene is of a kind in which shapes come back, so that what is told is how often each appears."""
    return scene.kind in ("blinks", "reruns", "groups")


def stay_edges(shape: MovingShape) -> tuple[Interval, ...]:
    """The first and the last beat of a shape's only stay: a good part of its way lies between."""
    (span,) = shape.spans
    return (span.start, span.start + BEAT), (span.end - BEAT, span.end)


def order_evidence(scene: Scene) -> tuple[Interval, ...]:
    """The times between appearances, each of which must be sampled for the order to be seen."""
    starts = sorted({shape.appears for shape in scene.shapes})
    return tuple(zip(starts, [*starts[1:], 1.0], strict=True))


def motion_clause(motion: str) -> str:
    """The predicate: "moves left", "stays still"."""
    return "stays still" if motion == "still" else f"moves {motion}"


def facts_of(shape: MovingShape, scene: Scene) -> list[Fact]:
    """What is told of one shape of a scene, one to four, in the order in which they are told."""
    name, facts = f"the {shape.name}", []
    if has_comings(scene):
        number = len(shape.spans)
        return [Fact(f"{name} appears {NUMBERS[number - 1]} time{'s' * (number > 1)}.", seen(shape) + gaps_of(shape))]
    place = scene.shapes.index(shape)
    if shape.appears > 0 or shape.motion is None or scene.kind == "stories":
        facts.append(Fact(f"{name} appears {ORDINALS[place]}.", seen(shape) + order_evidence(scene)))
    if shape.motion is not None:
        facts.append(Fact(f"{name} {motion_clause(shape.motion)}.", stay_edges(shape)))
    if shape.new_color is not None:
        facts.append(Fact(f"{name} turns {shape.new_color}.", seen(shape)))
    if shape.disappears < 1:
        facts.append(Fact(f"{name} disappears.", (*seen(shape), (shape.disappears, 1.0))))
    return facts


def caption_of(scene: Scene) -> list[Fact]:
    """All facts of a scene, in reading order."""
    return [fact for shape in scene.shapes for fact in facts_of(shape, scene)]


def split_facts(text: str) -> list[str]:
    """The sentences of a caption, in normal form without full stop, empty ones left out."""
    return [sentence.strip() for sentence in " ".join(words(text)).split(".") if sentence.strip()]


__all__ = [
    "Fact",
    "Interval",
    "caption_of",
    "facts_of",
    "gaps_of",
    "has_comings",
    "is_shown",
    "motion_clause",
    "stay_edges",
    "order_evidence",
    "seen",
    "split_facts",
]
