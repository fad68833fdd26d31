"""A picture of an answer being denoised: the frames above, and the canvas after each step below."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

MASK = "·"
_MAX_LINES = 14
_MAX_CHARACTERS = 110  # of a line


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
        steps: the canvas after each step, token ids; of many steps some are shown, the last always.
        tokenizer: decodes them.
        mask_token_id: what is not known yet.
        path: is returned.
    """
    from matplotlib.figure import Figure

    shown = sorted({round(i) for i in np.linspace(0, len(steps) - 1, min(_MAX_LINES, len(steps)))})
    figure = Figure(figsize=(12, 2.2 + 0.32 * len(shown)), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[1.8, 0.4 + 0.32 * len(shown)])
    above, below = parts
    for axes, frame, number in zip(above.subplots(1, len(frames)), frames, range(1, len(frames) + 1), strict=True):
        axes.imshow(frame)
        axes.set_title(str(number), fontsize=8)
        axes.axis("off")
    below.text(0.01, 0.97, question, fontsize=11, weight="bold", va="top")
    for line, number in enumerate(shown):
        text = write_canvas(steps[number], tokenizer, mask_token_id)
        height = 0.97 - (line + 1.3) / (len(shown) + 1.6)
        below.text(0.01, height, f"step {number + 1}", fontsize=8, color="gray", va="top")
        below.text(0.07, height, text, fontsize=8, family="monospace", va="top")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def write_canvas(ids: Sequence[int], tokenizer: Any, mask_token_id: int) -> str:
    """The canvas as a line: known words, a dot for each mask, nothing behind the end of the answer."""
    ends = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|eot_id|>")}
    pieces: list[str] = []
    for token in ids:
        if token in ends:
            break
        pieces.append(MASK if token == mask_token_id else tokenizer.decode([token]).strip())
    line = " ".join(pieces).replace(f"{MASK} {MASK}", MASK * 2).replace(f"{MASK} {MASK}", MASK * 2)
    return line if len(line) <= _MAX_CHARACTERS else line[: _MAX_CHARACTERS - 1] + "…"


__all__ = ["draw_denoising"]
