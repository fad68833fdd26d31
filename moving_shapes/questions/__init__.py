"""Questions about scenes: one function for each type, from a scene and randomness to a question with its answer.

Each question has two wordings, a few words and a sentence, and so has its answer. Its `evidence` says which intervals
of the clip must be sampled for the answer to be known: eight evenly sampled frames, or any larger number, do.

`coin`, 0..1, decides between the answers of a question that has two, so that a caller can keep both as frequent.
"""

import numpy as np

from ..scenes.scene import Scene
from .captions import ask_caption, ask_detail
from .cross_frame import ask_again, ask_appearances, ask_distinct, ask_mover, ask_when
from .helpers import ask_direction, ask_position
from .multiple_choice import OPTION_POOLS, Asker, ask_choice, ask_pick
from .question import CHOICE_TYPES, HELPER_TYPES, LONG_TYPES, STYLES, Question, check_style
from .single_frames import ask_color, ask_counting, ask_existence, ask_shape
from .temporal import (
    ask_change,
    ask_disappearance,
    ask_end_color,
    ask_first,
    ask_last,
    ask_motion,
    ask_ordinal,
    ask_presence,
    ask_start_color,
)

_ASKERS: dict[str, Asker] = {
    "color": ask_color,
    "shape": ask_shape,
    "existence": ask_existence,
    "counting": ask_counting,
    "motion": ask_motion,
    "first": ask_first,
    "last": ask_last,
    "ordinal": ask_ordinal,
    "start_color": ask_start_color,
    "end_color": ask_end_color,
    "change": ask_change,
    "disappearance": ask_disappearance,
    "presence": ask_presence,
    "distinct": ask_distinct,
    "again": ask_again,
    "when": ask_when,
    "appearances": ask_appearances,
    "mover": ask_mover,
    "choice": ask_choice,
    "caption": ask_caption,
    "detail": ask_detail,
    "position": ask_position,
    "direction": ask_direction,
    "pick": ask_pick,
}

QUESTION_TYPES = tuple(_ASKERS)
BENCHMARK_TYPES = tuple(type for type in _ASKERS if type not in HELPER_TYPES)
CROSS_FRAME_TYPES = ("distinct", "again", "when", "appearances", "mover")
TEMPORAL_TYPES = (
    "motion", "first", "last", "ordinal", "start_color", "end_color", "disappearance", "presence", "when",
    "appearances", "mover",
)  # fmt: skip
YES_NO_TYPES = ("existence", "disappearance", "presence", "position", "direction")


def ask(scene: Scene, type: str, rng: np.random.Generator, coin: float | None = None) -> Question | None:
    """Asks a question of a type about a scene.

    Args:
        type: of `QUESTION_TYPES`.
        coin: 0..1, decides between two possible answers; None draws it.

    Returns:
        The question, or None if the scene has nothing of the kind, or not with the answer that the coin wants.

    Raises:
        ValueError: for an unknown type.
    """
    return _ASKERS[check_type(type)](scene, rng, float(rng.random()) if coin is None else coin)


def check_type(type: str) -> str:
    """The type; ValueError if there is none of that name."""
    if type not in QUESTION_TYPES:
        raise ValueError(f"There is no question type {type!r}: pass one of {', '.join(map(repr, QUESTION_TYPES))}.")
    return type


__all__ = [
    "BENCHMARK_TYPES",
    "CHOICE_TYPES",
    "CROSS_FRAME_TYPES",
    "HELPER_TYPES",
    "LONG_TYPES",
    "OPTION_POOLS",
    "QUESTION_TYPES",
    "STYLES",
    "TEMPORAL_TYPES",
    "YES_NO_TYPES",
    "Question",
    "ask",
    "check_style",
    "check_type",
]
