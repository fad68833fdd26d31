"""Multiple choice: questions of other types with four options, one of them right."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..scenes.scene import COLORS, MOTIONS, SHAPES, Scene
from ..vocabulary import LETTERS, NUMBERS
from .question import Question
from .single_frames import ask_color, ask_counting, ask_shape
from .temporal import ask_end_color, ask_first, ask_last, ask_motion, ask_ordinal, ask_start_color

Asker = Callable[[Scene, np.random.Generator, float], Question | None]

OPTION_POOLS: tuple[Sequence[str], ...] = (COLORS, SHAPES, MOTIONS, NUMBERS[: len(LETTERS)])
_BASES: Mapping[str, Sequence[Asker]] = {
    "choice": (
        ask_color,
        ask_shape,
        ask_motion,
        ask_counting,
        ask_first,
        ask_last,
        ask_ordinal,
        ask_start_color,
        ask_end_color,
    ),
    "pick": (ask_shape, ask_first, ask_last, ask_ordinal),
}


def ask_choice(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    """What color is the circle? (A) red (B) pink (C) blue (D) cyan"""
    return _add_options(scene, "choice", OPTION_POOLS, rng, coin)


def ask_pick(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    """Multiple choice among shapes: an option must not be mistaken for the shape that the question is about."""
    return _add_options(scene, "pick", (SHAPES,), rng, coin)


def _add_options(
    scene: Scene, type: str, pools: Sequence[Sequence[str]], rng: np.random.Generator, coin: float
) -> Question | None:
    """A question with four options of the pool that its answer is in; None if it has none."""
    bases = _BASES[type]
    base = bases[int(rng.integers(len(bases)))](scene, rng, float(rng.random()))
    if base is None:
        return None
    right = base.answers[0]
    pool = next((pool for pool in pools if right in pool), None)
    if pool is None:
        return None
    others = [option for option in pool if option != right]
    present = {color for shape in scene.shapes for color, _ in shape.combinations} | {s.shape for s in scene.shapes}
    ranks = rng.random(len(others)) - [0.5 * (option in present) for option in others]  # these are more tempting
    options = [others[i] for i in np.argsort(ranks)[:3]]
    index = int(coin * len(LETTERS))
    options.insert(index, right)
    listed = " ".join(f"{letter.upper()} {option}" for letter, option in zip(LETTERS, options, strict=True))
    compact = " ".join(f"{letter} {option}" for letter, option in zip(LETTERS, options, strict=True))
    return replace(
        base,
        type=type,
        questions=(f"{base.questions[0]} {compact}", f"{base.questions[1]} {listed}"),
        answers=(LETTERS[index], f"{LETTERS[index]} {right}."),
        facts=(f"{LETTERS[index]} {right}.",),
    )


__all__ = ["OPTION_POOLS", "Asker", "ask_choice", "ask_pick"]
