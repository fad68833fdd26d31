"""An answer shown in the terminal while it is denoised."""

import shutil
import sys
from typing import Any

from transformers import TextDiffusionStreamer, TextStreamer

MASK_GLYPH = "░"


def make_streamer(tokenizer: Any, mask_token_id: int) -> TextStreamer:
    """For a terminal, one that redraws the canvas after each step; otherwise one that prints each finished block."""
    if sys.stdout.isatty():
        return CanvasStreamer(tokenizer, mask_token_id)
    return TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)


class CanvasStreamer(TextDiffusionStreamer):
    """transformers' streamer for drafts, with a light glyph for each mask, and room made for drafts of many lines.

    Args:
        tokenizer: decodes the tokens that are known.
        mask_token_id: stands for the others.
    """

    def __init__(self, tokenizer: Any, mask_token_id: int) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.mask_token_id = mask_token_id

    def put_draft(self, value: Any, **kwargs: Any) -> None:
        """Draws the canvas, (1, canvas) ids, in place of the draft before."""
        self._clear_draft()
        # The base class holds the last word of a finished block back until the next one comes.
        held_back = self.tokenizer.decode(self.token_cache, **self.decode_kwargs)[self.print_len :]
        text = held_back + self.render(value[0].tolist())
        lines = count_lines(text, shutil.get_terminal_size().columns)
        # Make room first (ESC D moves down in the same column and scrolls at the end of the screen): the position that
        # ESC 7 saves would otherwise be off as soon as the draft makes the screen scroll.
        print("\033D" * lines + f"\033[{lines}A", end="")
        print(f"\0337\033[33m{text}\033[0m", end="", flush=True)
        self._has_draft = True

    def render(self, ids: list[int]) -> str:
        """The canvas as text: runs of known tokens decoded, a glyph for each mask. Escape codes are not passed on."""
        text, run = "", list[int]()
        for token in [*ids, self.mask_token_id]:
            if token != self.mask_token_id:
                run.append(token)
                continue
            text += self.tokenizer.decode(run, **self.decode_kwargs) + MASK_GLYPH
            run = []
        return "".join(c if c.isprintable() or c == "\n" else " " for c in text[: -len(MASK_GLYPH)])


def count_lines(text: str, columns: int) -> int:
    """Lines of the screen that a text may take below the one it begins in, wherever in that it begins."""
    return sum(len(line) // columns + 1 for line in text.split("\n"))


__all__ = ["CanvasStreamer", "make_streamer"]
