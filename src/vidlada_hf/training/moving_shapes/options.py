"""Letters and the words behind them, without any video: what multiple choice takes besides knowing the answer.

That "(c)" is what stands before "pink" is found by few and late from whole questions, of which it is the last step.
"""

from collections.abc import Sequence

import numpy as np

from ...evaluation.moving_shapes.questions import OPTION_POOLS
from ...evaluation.moving_shapes.scenes import COLORS, SHAPES
from ...evaluation.moving_shapes.vocabulary import LETTERS


def draw_options(rng: np.random.Generator) -> tuple[list[str], list[str], int]:
    """Four options as a multiple choice lists them, one of them with its letter, and which of the two to tell."""
    offered = _offer(OPTION_POOLS[rng.integers(len(OPTION_POOLS))], rng)
    place = int(rng.integers(len(LETTERS)))
    return _list(offered), [LETTERS[place], offered[place]], int(rng.random() < 0.3)


def draw_distraction(answer: str, rng: np.random.Generator) -> list[str]:
    """Four shapes or colors as a multiple choice lists them, of a kind that the answer is not of."""
    pools = [pool for pool in (SHAPES, COLORS) if answer not in pool]
    return _list(_offer(pools[rng.integers(len(pools))], rng))


def _offer(pool: Sequence[str], rng: np.random.Generator) -> list[str]:
    return [pool[i] for i in rng.permutation(len(pool))[: len(LETTERS)]]


def _list(offered: Sequence[str]) -> list[str]:
    return [word for pair in zip(LETTERS, offered, strict=True) for word in pair]


__all__ = ["draw_distraction", "draw_options"]
