"""Letters and the words behind them, without any video: what multiple choice takes besides knowing the answer.

That "(c)" is what stands before "pink" is found by few and late from whole questions, of which it is the last step.
"""

import numpy as np

from ..questions import OPTION_POOLS
from ..vocabulary import LETTERS


def draw_options(rng: np.random.Generator) -> tuple[list[str], list[str], int]:
    """Four options as a multiple choice lists them, one of them with its letter, and which of the two to tell."""
    pool = OPTION_POOLS[rng.integers(len(OPTION_POOLS))]
    offered = [pool[i] for i in rng.permutation(len(pool))[: len(LETTERS)]]
    listed = [word for pair in zip(LETTERS, offered, strict=True) for word in pair]
    place = int(rng.integers(len(LETTERS)))
    return listed, [LETTERS[place], offered[place]], int(rng.random() < 0.3)


__all__ = ["draw_options"]
