"""A canvas as pieces of text: what was known, what a step has just committed, and masks."""

from collections.abc import Collection, Sequence
from itertools import groupby
from typing import Any, Literal

State = Literal["known", "new", "mask"]


def canvas_pieces(
    ids: Sequence[int], before: Sequence[int], tokenizer: Any, mask_token_id: int, end_ids: Collection[int]
) -> list[tuple[str, State]]:
    """The canvas up to its first end: a piece for each mask, without text, and one for each run of other tokens.

    Args:
        ids: the canvas as it stands.
        before: as it stood a step earlier; empty: all masks.
        end_ids: ids that end an answer wherever they stand.
    """
    length = next((i for i, token in enumerate(ids) if token in end_ids), len(ids))
    before = before or [mask_token_id] * len(ids)
    pieces: list[tuple[str, State]] = []
    tokens = [(token, token != was) for token, was in zip(ids[:length], before, strict=False)]
    for is_masked, group in groupby(tokens, key=lambda token: token[0] == mask_token_id):
        run = list(group)
        pieces += [("", "mask")] * len(run) if is_masked else _known_pieces(run, tokenizer)
    return pieces


def _known_pieces(run: Sequence[tuple[int, bool]], tokenizer: Any) -> list[tuple[str, State]]:
    """Tokens without a mask between them, each with whether it is new. A piece is what it adds to the decoded text:
    tokens alone would lose the blanks between them, or hold half a letter."""
    pieces: list[tuple[str, State]] = []
    decoded: list[int] = []
    text = ""
    for is_new, group in groupby(run, key=lambda token: token[1]):
        decoded += [token for token, _ in group]
        longer = tokenizer.decode(decoded, skip_special_tokens=True)
        pieces.append((longer[len(text) :], "new" if is_new else "known"))
        text = longer
    return pieces


__all__ = ["State", "canvas_pieces"]
