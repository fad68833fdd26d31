"""Option lists without a video: they train which word follows which letter, apart from the answer to a question.

Whole questions with multiple choice teach this late or not at all, since it is their last step.
"""

import numpy as np

from ..questions import OPTION_POOLS
from ..vocabulary import LETTERS


def draw_option_list(rng: np.random.Generator) -> tuple[list[str], list[str], int]:
    """Draws a multiple choice without a question.

    Returns:
        - The words of four options with their letters, eight in all.
        - The answer: the letter and the word of one of them.
        - Which of these two words to mask, 0 or 1.
    """
    pool = OPTION_POOLS[rng.integers(len(OPTION_POOLS))]
    options = [pool[i] for i in rng.permutation(len(pool))[: len(LETTERS)]]
    listed = [word for pair in zip(LETTERS, options, strict=True) for word in pair]
    index = int(rng.integers(len(LETTERS)))
    return listed, [LETTERS[index], options[index]], int(rng.random() < 0.3)


__all__ = ["draw_option_list"]
