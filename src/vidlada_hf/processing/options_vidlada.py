"""Options by name: what is wrong with an unknown or an impossible one, in one wording for the whole room."""

import difflib
from collections.abc import Collection, Iterable
from typing import Any


def nearest_name(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name closest to a misspelled one; None if none is at least as similar as `cutoff` (0..1)."""
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1, cutoff=cutoff)), None)


def unknown_option(name: str, owner: str, known: Collection[str]) -> str:
    """The error message for an option that `owner` does not have."""
    near = nearest_name(name, known)
    hint = f"Did you mean `{near}`?" if near else f"Known are: {', '.join(sorted(known))}."
    return f"Unknown option `{name}` of {owner}. {hint}"


def check_choice(name: str, value: Any, choices: Collection[Any]) -> None:
    """Raises a ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}.")


__all__ = ["check_choice", "nearest_name", "unknown_option"]
