"""Questions about motion, order and events: most of the answers depend on the order of the frames."""

import numpy as np

from ..facts import (
    has_returning_shapes,
    motion_clause,
    motion_evidence,
    order_evidence,
    scene_evidence,
    shape_evidence,
)
from ..scenes.scene import BEAT, MovingShape, Scene
from ..vocabulary import ORDINALS
from .question import Question, has_unique_names, make_question, pick_shape, yes_or_no

AT_START, AT_END = (0.0, BEAT), (1 - BEAT, 1.0)


def ask_motion(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    """How does the circle move?"""
    shape = pick_shape(rng, [s for s in scene.shapes if s.motion is not None])
    if shape is None or not has_unique_names(scene):
        return None
    assert shape.motion is not None
    answer = shape.motion, f"the {shape.shape} {motion_clause(shape.motion)}."
    words = f"move {shape.shape}", f"How does the {shape.shape} move?"
    return make_question(scene, "motion", words, answer, motion_evidence(shape), shape)


def ask_first(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    """Which shape appears first?"""
    return _ask_extreme(scene, "first", scene.shapes[0])


def ask_last(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    """Which shape appears last?"""
    return _ask_extreme(scene, "last", scene.shapes[-1])


def _ask_extreme(scene: Scene, type: str, shape: MovingShape) -> Question | None:
    alone = sum(other.appears == shape.appears for other in scene.shapes) == 1
    if len(scene.shapes) < 2 or not alone or has_returning_shapes(scene):
        return None
    words = f"appears {type}", f"Which shape appears {type}?"
    answer = shape.shape, f"the {shape.shape} appears {type}."
    return make_question(scene, type, words, answer, shape_evidence(shape) + order_evidence(scene), shape)


def ask_ordinal(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    """What color is the second shape? What is the second shape?"""
    if len(scene.shapes) < 2 or has_returning_shapes(scene):
        return None
    index = int(rng.integers(len(scene.shapes)))
    shape, ordinal = scene.shapes[index], ORDINALS[index]
    evidence = shape_evidence(shape) + order_evidence(scene)
    if coin < 0.5 and shape.new_color is None:
        words = f"color {ordinal}", f"What color is the {ordinal} shape?"
        answer = shape.color, f"the {ordinal} shape is {shape.color}."
    else:
        words = f"shape {ordinal}", f"What is the {ordinal} shape?"
        answer = shape.shape, f"the {ordinal} shape is a {shape.shape}."
    return make_question(scene, "ordinal", words, answer, evidence, shape)


def ask_start_color(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    """What color is the circle at the start?"""
    shape = _pick_by_change(rng, [s for s in scene.shapes if s.appears == 0], coin)
    if shape is None or has_returning_shapes(scene):
        return None
    words = f"color {shape.shape} start", f"What color is the {shape.shape} at the start?"
    answer = shape.color, f"at the start the {shape.shape} is {shape.color}."
    return make_question(scene, "start_color", words, answer, [*shape_evidence(shape), AT_START], shape)


def ask_end_color(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    """What color is the circle at the end?"""
    shape = _pick_by_change(rng, [s for s in scene.shapes if s.disappears >= 1], coin)
    if shape is None or has_returning_shapes(scene):
        return None
    color = shape.new_color or shape.color
    words = f"color {shape.shape} end", f"What color is the {shape.shape} at the end?"
    answer = color, f"at the end the {shape.shape} is {color}."
    return make_question(scene, "end_color", words, answer, [*shape_evidence(shape), AT_END], shape)


def _pick_by_change(rng: np.random.Generator, shapes: list[MovingShape], coin: float) -> MovingShape | None:
    """One that changes color in three of four questions."""
    changing = [shape for shape in shapes if shape.new_color is not None]
    steady = [shape for shape in shapes if shape.new_color is None]
    return pick_shape(rng, (changing or steady) if coin < 0.75 else (steady or changing))


def ask_change(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    """Does any shape change color? Which shape changes color?"""
    changing = [shape for shape in scene.shapes if shape.new_color is not None]
    if has_returning_shapes(scene):
        return None
    edges = (edge for shape in scene.shapes for edge in motion_evidence(shape))
    evidence = [*scene_evidence(scene), *edges]
    if coin < (0.5 if changing else 0.75):
        words = "any changes color", "Does any shape change color?"
        full = f"yes, the {changing[0].shape} changes color." if changing else "no, no shape changes color."
        return make_question(scene, "change", words, ("yes" if changing else "no", full), evidence, *changing[:1])
    if len(changing) > 1:
        return None
    words = "changes color", "Which shape changes color?"
    answer = ("none", "no shape changes color.")
    if changing:
        answer = changing[0].shape, f"the {changing[0].shape} changes color."
    return make_question(scene, "change", words, answer, evidence, *changing)


def ask_disappearance(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    """Does the circle disappear?"""
    wanted = coin < 0.5
    shape = pick_shape(rng, [s for s in scene.shapes if (s.disappears < 1) == wanted])
    if shape is None or has_returning_shapes(scene):
        return None
    words = f"disappears {shape.shape}", f"Does the {shape.shape} disappear?"
    answer = yes_or_no(wanted, f"the {shape.shape}", "disappears", "does not disappear")
    evidence = [*shape_evidence(shape), (shape.disappears, 1)]
    return make_question(scene, "disappearance", words, answer, evidence, shape)


def ask_presence(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    """Is the red circle there at the end?"""
    moment = "start" if rng.random() < 0.5 else "end"
    wanted = coin < 0.5
    time = np.array([0.0 if moment == "start" else 1.0])
    shape = pick_shape(rng, [s for s in scene.shapes if bool(s.visible(time)[0]) == wanted])
    if shape is None:
        return None
    words = f"there {shape.name} {moment}", f"Is the {shape.name} there at the {moment}?"
    answer = yes_or_no(wanted, f"the {shape.name}", f"is there at the {moment}", f"is not there at the {moment}")
    evidence = [*shape_evidence(shape), AT_START if moment == "start" else AT_END]
    return make_question(scene, "presence", words, answer, evidence, shape)


__all__ = [
    "ask_change",
    "ask_disappearance",
    "ask_end_color",
    "ask_first",
    "ask_last",
    "ask_motion",
    "ask_ordinal",
    "ask_presence",
    "ask_start_color",
]
