"""Combinations of color and shape that training contains, and a softmax that does not unlearn the others.

A third of the combinations is held out. Cross entropy over all colors teaches "a circle is never red" where no red
circle occurs in training, although nothing in the videos says so. So a color competes only with the colors that its
shape has in training, and a shape only with the shapes that its color has: the other words are excluded from the
softmax.

This keeps a model from unlearning held-out combinations, but does not teach them, and logits that nothing pushes down
drift. So in some sequences the words of a kind are rotated (see `word_rotation`): the answer to "what shape is the
...?" then competes with all shapes, and the color says nothing about it.
"""

import numpy as np
import torch

from .. import Question, Scene, words
from ..scenes.scene import COLORS, SHAPES
from ..scenes.splits import get_split

KINDS = {"color": COLORS, "shape": SHAPES}


def training_combinations() -> torch.Tensor:
    """Which combinations training contains: bool (colors, shapes)."""
    table = torch.zeros(len(COLORS), len(SHAPES), dtype=torch.bool)
    for color, shape in get_split("train").combinations:
        table[COLORS.index(color), SHAPES.index(shape)] = True
    return table


def excluded_words(word_ids: dict[str, int]) -> torch.Tensor:
    """The words that are excluded from the softmax, for each code of `exclusion_codes`: bool (codes, vocabulary).

    Code 0 excludes none. Then comes a code for each color (it excludes shapes), then one for each shape.
    """
    colors, shapes = [word_ids[color] for color in COLORS], [word_ids[shape] for shape in SHAPES]
    in_training = training_combinations()
    table = torch.zeros(1 + len(COLORS) + len(SHAPES), len(word_ids), dtype=torch.bool)
    for i, color in enumerate(colors):
        for j, shape in enumerate(shapes):
            if not in_training[i, j]:
                table[1 + i, shape] = True
                table[1 + len(COLORS) + j, color] = True
    return table


def exclusion_codes(question: Question, scene: Scene) -> np.ndarray:
    """A code for each word of `question.training_answer`: int64 (words,).

    The code of a color is that of its shape, and the other way around: that of the neighboring word, or else of the
    shape that the question is about. Other words have code 0.
    """
    answer = words(question.training_answer)
    shapes = [scene.shapes[index] for index in question.shapes]
    codes = np.zeros(len(answer), np.int64)
    last_shape = shapes[0].shape if shapes and question.type != "caption" else None
    for i, word in enumerate(answer):
        before, after = (answer[i - 1] if i else None), (answer[i + 1] if i + 1 < len(answer) else None)
        if word in COLORS:
            shape = after if after in SHAPES else last_shape
            codes[i] = 0 if shape is None else 1 + len(COLORS) + SHAPES.index(shape)
        elif word in SHAPES:
            color = before if before in COLORS else (shapes[0].color if shapes else None)
            codes[i] = 0 if color is None else 1 + COLORS.index(color)
            last_shape = word
    return codes


__all__ = ["KINDS", "excluded_words", "exclusion_codes", "training_combinations"]
