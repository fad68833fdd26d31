"""Checks of arguments: each raises one ValueError that names the value and the remedy."""

import difflib
from collections.abc import Collection, Iterable, Sequence
from typing import Any


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


__all__ = [
    "check_choice",
    "check_ids",
    "check_interval",
    "check_positive",
    "check_whole",
    "refuse_unknown",
]
