"""Questions that single frames answer."""

import numpy as np

from ..facts import has_returning_shapes, scene_evidence, shape_evidence
from ..scenes.scene import MovingShape, Scene
from ..scenes.splits import Combination, get_split
from ..vocabulary import NUMBERS
from .question import Question, has_unique_names, make_question, pick_shape


def ask_color(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    """What color is the circle?"""
    shape = pick_shape(rng, [s for s in scene.shapes if s.new_color is None])
    if shape is None or not has_unique_names(scene):
        return None
    words = f"color {shape.shape}", f"What color is the {shape.shape}?"
    answer = shape.color, f"the {shape.shape} is {shape.color}."
    return make_question(scene, "color", words, answer, shape_evidence(shape), shape)


def ask_shape(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    """What is the red shape?"""
    shape = pick_shape(rng, scene.shapes)
    if shape is None or not has_unique_names(scene):
        return None
    words = f"shape {shape.color}", f"What is the {shape.color} shape?"
    answer = shape.shape, f"the {shape.color} shape is a {shape.shape}."
    return make_question(scene, "shape", words, answer, shape_evidence(shape)[:1], shape)


def ask_existence(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    """Is there a red circle?"""
    shape = pick_shape(rng, scene.shapes)
    assert shape is not None
    if coin < 0.5:
        color, kind = shape.combinations[rng.integers(len(shape.combinations))]
        evidence = shape_evidence(shape)
    else:
        absent = _absent_combination(scene, shape, rng)
        if absent is None:
            return None
        (color, kind), evidence = absent, scene_evidence(scene)
    name = f"{color} {kind}"
    answer = ("yes", f"yes, there is a {name}.") if coin < 0.5 else ("no", f"no, there is no {name}.")
    return make_question(scene, "existence", (f"there {name}", f"Is there a {name}?"), answer, evidence, shape)


def _absent_combination(scene: Scene, model: MovingShape, rng: np.random.Generator) -> Combination | None:
    """A combination that is not in the scene but has the color or the shape of one that is.

    It is held out if that of `model` is, so that held-out combinations are as often absent as present.
    """
    split = get_split(scene.split)
    present = [combination for shape in scene.shapes for combination in shape.combinations]
    pool = split.held_out if model.combinations[0] in split.held_out else split.shared
    absent = [combination for combination in pool if combination not in present]
    similar = [(color, shape) for color, shape in absent if any((color == c) != (shape == s) for c, s in present)]
    options = similar or absent
    return options[rng.integers(len(options))] if options else None


def ask_counting(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    """How many shapes are there?"""
    if has_returning_shapes(scene):
        return None
    return count_shapes(scene, "counting", ("many shapes", "How many shapes are there?"))


def count_shapes(scene: Scene, type: str, words: tuple[str, str]) -> Question:
    """A question of the type "counting" or "distinct" for the number of different shapes."""
    number = NUMBERS[len(scene.shapes) - 1]
    different = "different " if type == "distinct" else ""
    full = "there is one shape." if number == "one" else f"there are {number} {different}shapes."
    return make_question(scene, type, words, (number, full), scene_evidence(scene), *scene.shapes)


__all__ = ["ask_color", "ask_counting", "ask_existence", "ask_shape", "count_shapes"]
