"""Questions whose answers have to be computed across frames; README.md says which of them do by construction."""

import numpy as np

from ..facts import (
    absences,
    has_returning_shapes,
    motion_clause,
    motion_evidence,
    scene_evidence,
    shape_evidence,
)
from ..scenes.scene import Scene
from ..vocabulary import NUMBERS
from .question import Question, has_unique_names, make_question, pick_shape
from .single_frames import count_shapes


def ask_distinct(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    """How many different shapes are there?"""
    if scene.kind != "sequences":
        return None
    return count_shapes(scene, "distinct", ("many different shapes", "How many different shapes are there?"))


def ask_again(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    """Is a shape from the start back at the end?"""
    if scene.kind != "groups":
        return None
    back = [shape for shape in scene.shapes if len(shape.spans) > 1]
    words = "start back end", "Is a shape from the start back at the end?"
    full = f"yes, the {back[0].name} is back." if back else "no, none is back."
    return make_question(scene, "again", words, ("yes" if back else "no", full), scene_evidence(scene), *back)


def ask_when(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    """What color is the square when the circle appears?"""
    if has_returning_shapes(scene):
        return None
    pairs = [
        (changing, arriving)
        for changing in scene.shapes
        for arriving in scene.shapes
        if changing.change_time is not None
        and arriving is not changing
        and changing.appears < arriving.appears < changing.disappears
        and arriving.appears != changing.change_time
    ]
    if not pairs:
        return None
    changing, arriving = pairs[rng.integers(len(pairs))]
    assert changing.change_time is not None and changing.new_color is not None
    color = changing.color if arriving.appears < changing.change_time else changing.new_color
    words = (
        f"color {changing.shape} when {arriving.shape}",
        f"What color is the {changing.shape} when the {arriving.shape} appears?",
    )
    answer = color, f"the {changing.shape} is {color} when the {arriving.shape} appears."
    first, second = sorted((arriving.appears, changing.change_time))
    evidence = [*shape_evidence(changing), *shape_evidence(arriving), (first, second)]
    return make_question(scene, "when", words, answer, evidence, changing, arriving)


def ask_appearances(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    """How many times does the red circle appear?"""
    shape = pick_shape(rng, scene.shapes)
    assert shape is not None
    number = len(shape.spans)
    words = f"times {shape.name}", f"How many times does the {shape.name} appear?"
    outside = [gap for gap in ((0, shape.appears), *absences(shape), (shape.disappears, 1)) if gap[0] < gap[1]]
    answer = NUMBERS[number - 1], f"the {shape.name} appears {NUMBERS[number - 1]} time{'s' * (number > 1)}."
    return make_question(scene, "appearances", words, answer, [*shape_evidence(shape), *outside], shape)


def ask_mover(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    """Which shape moves left?"""
    known = [shape for shape in scene.shapes if shape.motion is not None]
    if len(known) < max(2, len(scene.shapes)) or not has_unique_names(scene):
        return None
    shape = pick_shape(rng, [s for s in known if sum(other.motion == s.motion for other in known) == 1])
    if shape is None:
        return None
    assert shape.motion is not None
    clause = motion_clause(shape.motion)
    evidence = [interval for other in known for interval in motion_evidence(other)]
    answer = shape.shape, f"the {shape.shape} {clause}."
    return make_question(scene, "mover", (clause, f"Which shape {clause}?"), answer, evidence, shape)


__all__ = ["ask_again", "ask_appearances", "ask_distinct", "ask_mover", "ask_when"]
