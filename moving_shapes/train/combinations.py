"""Which colors and shapes training shows together, and how not to learn that the others cannot be.

A third of the combinations is held out. Cross entropy over all colors teaches "a circle is never red" wherever no red
circle was shown, although nothing in the pictures says so. So a color is only told from the other colors that its
shape is shown in, and a shape from the other shapes that are shown in its color: the rest is left out of the softmax.

That keeps a model from unlearning what was never shown; it does not teach it either, and what nothing ever pushes down
drifts. So in some lessons colors have no names (see `turn_words`): "what shape is the ...?" is then to be told from all
shapes, and that it was red tells nothing about it.
"""

from collections.abc import Sequence

import numpy as np
import torch

from .. import Question, Scene, words
from ..scenes.scene import COLORS, SHAPES
from ..scenes.splits import get_split

KINDS = {"color": COLORS, "shape": SHAPES}


def shown_together() -> torch.Tensor:
    """bool (colors, shapes)."""
    shown = torch.zeros(len(COLORS), len(SHAPES), dtype=torch.bool)
    for color, shape in get_split("train").looks:
        shown[COLORS.index(color), SHAPES.index(shape)] = True
    return shown


def left_out(word_ids: dict[str, int]) -> torch.Tensor:
    """What is left out of the softmax for each code of `code_answer`: bool (codes, vocabulary).

    Code 0 leaves out nothing, then comes a code for each color (shapes never shown in it), then one for each shape.
    """
    colors, shapes = [word_ids[color] for color in COLORS], [word_ids[shape] for shape in SHAPES]
    table = torch.zeros(1 + len(COLORS) + len(SHAPES), len(word_ids), dtype=torch.bool)
    for i, color in enumerate(colors):
        for j, shape in enumerate(shapes):
            if not shown_together()[i, j]:
                table[1 + i, shape] = True
                table[1 + len(COLORS) + j, color] = True
    return table


def code_answer(question: Question, scene: Scene) -> np.ndarray:
    """For each word of the answer that is taught the code of what it belongs to, int64 (words,).

    A color belongs to a shape, a shape to a color: the neighboring word, or what the question is about.
    """
    said = words(question.taught)
    about = [scene.shapes[place] for place in question.shapes]
    codes = np.zeros(len(said), np.int64)
    last_shape = about[0].shape if len(about) and question.type != "caption" else None
    for i, word in enumerate(said):
        before, after = (said[i - 1] if i else None), (said[i + 1] if i + 1 < len(said) else None)
        if word in COLORS:
            shape = after if after in SHAPES else last_shape
            codes[i] = 0 if shape is None else 1 + len(COLORS) + SHAPES.index(shape)
        elif word in SHAPES:
            color = before if before in COLORS else (about[0].color if about else None)
            codes[i] = 0 if color is None else 1 + COLORS.index(color)
            last_shape = word
    return codes


def draw_turn(size: int, nameless: bool, rng: np.random.Generator) -> np.ndarray:
    """A random rotation of the space that the words of a kind span, float32 (size, size); else the identity."""
    if not nameless:
        return np.eye(size, dtype=np.float32)
    return np.linalg.qr(rng.standard_normal((size, size)))[0].astype(np.float32)


def turn_words(rows: torch.Tensor, told: torch.Tensor, words: torch.Tensor, turned: torch.Tensor) -> torch.Tensor:
    """Rotates what rows say of one kind of words, each sequence's alike, and leaves the rest of them as it is.

    What a cell shows is said in the embeddings of its words. Turned in questions and cells alike, colors still match,
    but are none of those with names.

    Args:
        rows: (batch, rows, hidden), cells and words.
        told: (batch, rows), bool: which rows to turn.
        words: embeddings of the kind's words, (words, hidden).
        turned: (batch, words, words), of `draw_turn`.
    """
    basis = torch.linalg.qr(words.detach().float().T).Q.to(rows.dtype)  # (hidden, words)
    change = (turned - torch.eye(len(words), device=turned.device)).to(rows.dtype)
    return rows + torch.where(told[..., None], rows @ basis @ change @ basis.T, 0)


__all__: Sequence[str] = [
    "KINDS",
    "code_answer",
    "draw_turn",
    "left_out",
    "shown_together",
    "turn_words",
]
