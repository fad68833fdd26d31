"""Checks of arguments: each raises one ValueError that names the value and the remedy."""

import contextlib
import difflib
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch


def refuse_unknown(names: Iterable[Any], known: Collection[str], what: str) -> None:
    """Refuses the first name that is not known, and suggests the nearest known one.

    Args:
        what: the names are, such as "generation argument".
    """
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
            hint = f"Did you mean `{near[0]}`?" if near else f"Known are: {', '.join(known) or 'none'}."
            raise ValueError(f"Unknown {what} `{name}`. {hint}")


def check_whole(name: str, value: Any, least: int, unit: str = "") -> None:
    """Refuses what is no whole number of at least so much."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"`{name}` must be a whole number of at least {least}{unit}, got {value!r}.")


def check_seed(name: str, value: Any) -> None:
    """Refuses what torch cannot seed a generator with."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**64:
        raise ValueError(f"`{name}` must be a whole number from 0 to 2**64 - 1, got {value!r}.")


def check_interval(name: str, value: Any) -> Any:
    """The number of steps, or None for never; anything else is refused."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ValueError(f"`{name}` must be a whole number of steps of at least 1, or None for never, got {value!r}.")
    return value


def check_positive(name: str, value: Any) -> float:
    """The number, which must be above 0."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise ValueError(f"`{name}` must be a number above 0, got {value!r}.")
    return float(value)


def check_choice(name: str, value: Any, known: Sequence[str]) -> None:
    """Refuses what is not among the known values."""
    if value not in known:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, known))}, got {value!r}.")


def check_ids(name: str, ids: Iterable[int], vocab_size: int) -> None:
    """Refuses the first id outside the vocabulary."""
    for token in ids:
        if not 0 <= token < vocab_size:
            raise ValueError(f"`{name}` holds the id {token}, outside the vocabulary of {vocab_size} tokens.")


def prepare_prompts(
    input_ids: torch.Tensor | None, attention_mask: torch.Tensor | None, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, (batch, tokens), int64, on a device. Refuses another shape of either."""
    if input_ids is None or input_ids.dim() != 2:
        shape = None if input_ids is None else tuple(input_ids.shape)
        raise ValueError(f"`input_ids` must be given with shape (batch, tokens), got {shape}.")
    if attention_mask is not None and attention_mask.shape != input_ids.shape:
        raise ValueError(
            f"`attention_mask` must have the shape of `input_ids` {tuple(input_ids.shape)}, "
            f"got {tuple(attention_mask.shape)}."
        )
    input_ids = input_ids.to(device)
    return input_ids, torch.ones_like(input_ids) if attention_mask is None else attention_mask.to(device).long()


def check_positions(attended: torch.Tensor, behind: int, limit: int) -> None:
    """Refuses prompts that need more positions than a model has.

    Args:
        attended: (batch, tokens), 0 where padded.
        behind: tokens that follow each: `max_new_tokens` and the suffix.
        limit: the model's positions.
    """
    if attended.shape[1] + behind <= limit:
        return
    longest = int((attended != 0).sum(-1).max())
    if longest + behind > limit:
        raise ValueError(
            f"The prompt takes {longest} tokens and the answer up to {behind} (`max_new_tokens`, with a suffix), and "
            f"the model has {limit} positions: sample fewer frames, shorten the text, or ask for a shorter answer. "
            "(`model.config.text_config.max_position_embeddings` says how many; beyond, answers get worse.)"
        )


def text_ids(text: str, tokenizer: Any, what: str, **options: Any) -> list[int]:
    """The ids of a text that an argument holds.

    Args:
        what: the text is, such as "The choice".
        options: of the tokenizer.
    """
    if tokenizer is None:
        raise ValueError(f"{what} {text!r} is a text, which needs `tokenizer=`.")
    if half := re.search("[\ud800-\udfff]", text):
        raise ValueError(f"{what} {text!r} holds half a character ({half[0]!r}): repair the text's encoding.")
    # A processor that reads ahead in a thread uses the tokenizer, too, and marks it so.
    with getattr(tokenizer, "in_use", contextlib.nullcontext()):
        return list(tokenizer(text, add_special_tokens=False, **options).input_ids)


__all__ = [
    "check_choice",
    "check_ids",
    "check_interval",
    "check_positions",
    "check_positive",
    "check_seed",
    "check_whole",
    "prepare_prompts",
    "refuse_unknown",
    "text_ids",
]
