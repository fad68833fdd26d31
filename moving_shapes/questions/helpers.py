"""Questions that are no part of the benchmark, but make motion easier to learn."""

import numpy as np

from ..facts import has_returning_shapes, motion_clause, motion_evidence
from ..scenes.scene import MOTIONS, Scene
from .question import Question, has_unique_names, make_question, pick_shape, yes_or_no


def ask_position(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    """Is the circle in the left half at the start?"""
    if has_returning_shapes(scene):
        return None
    moment, axis = ("start", "end")[rng.integers(2)], int(rng.integers(2))
    at_start, wanted = moment == "start", coin < 0.5
    options = []
    for shape in scene.shapes:
        if not (shape.appears == 0 if at_start else shape.disappears >= 1):
            continue
        value = (shape.spans[0].origin if at_start else shape.spans[0].target)[axis]
        if abs(value - 0.5) >= 0.08 and (value < 0.5) == wanted:
            options.append(shape)
    chosen = pick_shape(rng, options)
    if chosen is None:
        return None
    side = ("left", "top")[axis]
    words = f"{side} {chosen.shape} {moment}", f"Is the {chosen.shape} in the {side} half at the {moment}?"
    answer = yes_or_no(wanted, f"the {chosen.shape}", f"is in the {side} half", f"is not in the {side} half")
    instant = (0.0, 0.01) if at_start else (1.0, 1.0)
    return make_question(scene, "position", words, answer, [instant], chosen)


def ask_direction(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    """Does the circle move left?"""
    shape = pick_shape(rng, [s for s in scene.shapes if s.motion is not None])
    if shape is None or not has_unique_names(scene):
        return None
    motion = shape.motion
    if coin >= 0.5:
        others = [motion for motion in MOTIONS if motion != shape.motion]
        motion = others[rng.integers(len(others))]
    assert motion is not None
    clause = motion_clause(motion)
    infinitive = "stay still" if motion == "still" else f"move {motion}"
    words = f"{clause} {shape.shape}", f"Does the {shape.shape} {infinitive}?"
    answer = yes_or_no(coin < 0.5, f"the {shape.shape}", clause, f"does not {infinitive}")
    return make_question(scene, "direction", words, answer, motion_evidence(shape), shape)


__all__ = ["ask_direction", "ask_position"]
