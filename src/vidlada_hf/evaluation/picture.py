"""A picture of an answer being denoised: the frames above, and the whole answer after each step below.

A word stays at its place from step to step, so that it can be seen at a glance what a step adds: new words have a color
of their own, and a box stands for each masked token, as wide as the word that will be there.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

WIDTH = 8.3  # inches: a README's width, at which text of `SIZE` points is read without zooming
SIZE, LINE = 8.5, 0.17  # points of the letters; inches of a line
COLUMNS = 96  # letters of a line
MAX_STEPS = 16
_LETTER = 0.602 * SIZE / 72  # inches of a letter of matplotlib's monospaced font
_LEFT = 0.45  # inches, of the answer
_NEW, _KNOWN, _MASK = "#c2410c", "#1f2937", "#e5e7eb"


def draw_denoising(
    frames: np.ndarray,
    question: str,
    steps: Sequence[Sequence[int]],
    tokenizer: Any,
    mask_token_id: int,
    path: Path,
) -> Path:
    """Draws and saves the picture (PNG, or what the suffix says).

    Args:
        frames: uint8 (T, height, width, 3).
        question: shown above the steps.
        steps: the canvas after each step, token ids; of more than `MAX_STEPS` some are shown, the last always.
        tokenizer: decodes them.
        mask_token_id: what is not known yet.
        path: is returned.
    """
    from matplotlib.figure import Figure

    answer = answer_words(steps[-1], tokenizer)
    places, lines = place_words(answer)
    shown = sorted({round(i) for i in np.linspace(0, len(steps) - 1, min(MAX_STEPS, len(steps)))})
    strip = WIDTH / len(frames) * frames.shape[1] / frames.shape[2]
    height = strip + 0.45 + len(shown) * (lines + 0.6) * LINE
    figure = Figure(figsize=(WIDTH, height))
    draw_frames(figure, frames, strip / height)
    axes = figure.add_axes((0, 0, 1, 1 - strip / height))
    axes.set(xlim=(0, WIDTH), ylim=(height - strip, 0))  # inches, from the top
    axes.axis("off")
    axes.text(0.08, 0.25, question, fontsize=10.5, weight="bold", va="center")
    before: Sequence[int] = [mask_token_id] * len(steps[0])
    for row, number in enumerate(shown):
        top = 0.5 + row * (lines + 0.6) * LINE
        axes.text(0.08, top, f"{number + 1}", fontsize=SIZE, color="#6b7280", va="center")
        is_known = [token != mask_token_id for token in steps[number]]
        is_new = [known and token == mask_token_id for known, token in zip(is_known, before, strict=True)]
        draw_words(axes, top, answer, places, is_known, is_new)
        before = steps[number]
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=200)
    return path


def answer_words(ids: Sequence[int], tokenizer: Any) -> list[str]:
    """A finished canvas as one word for each token, up to the end of the answer."""
    ends = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|eot_id|>")}
    length = next((i for i, token in enumerate(ids) if token in ends), len(ids))
    return [tokenizer.decode([token]).strip() for token in ids[:length]]


def place_words(words: Sequence[str]) -> tuple[list[tuple[int, int]], int]:
    """Sets words in lines of `COLUMNS` letters, a blank between them: (line, column) of each, and how many lines."""
    places, line, column = [], 0, 0
    for word in words:
        if column and column + len(word) > COLUMNS:
            line, column = line + 1, 0
        places.append((line, column))
        column += len(word) + 1
    return places, line + 1


def draw_frames(figure: Any, frames: np.ndarray, height: float) -> None:
    """The frames side by side at the top, in so much of the figure's height."""
    width = 1 / len(frames)
    for number, frame in enumerate(frames):
        axes = figure.add_axes((number * width + 0.002, 1 - height, width - 0.004, height))
        axes.imshow(frame)
        axes.axis("off")


def draw_words(
    axes: Any,
    top: float,
    words: Sequence[str],
    places: Sequence[tuple[int, int]],
    is_known: Sequence[bool],
    is_new: Sequence[bool],
) -> None:
    """The answer after one step, its first line at `top` inches."""
    from matplotlib.patches import Rectangle

    for word, (line, column), known, new in zip(words, places, is_known, is_new, strict=False):
        x, y = _LEFT + column * _LETTER, top + line * LINE
        if known:
            color, weight = (_NEW, "bold") if new else (_KNOWN, "normal")
            axes.text(x, y, word, fontsize=SIZE, family="monospace", color=color, weight=weight, va="center")
        else:
            axes.add_patch(Rectangle((x, y - 0.3 * LINE), len(word) * _LETTER, 0.6 * LINE, color=_MASK, linewidth=0))


__all__ = ["draw_denoising"]
