"""Settings as a user types them: cache strategies, unmasking rules, dtypes.

Nothing heavy is imported here, so that a mistake is told at once. The names are those of `CACHE_STRATEGIES` and
`UNMASKING_STRATEGIES`, which cannot be imported without torch.
"""

import json
from collections.abc import Collection
from typing import Any

CACHE_NAMES = ("none", "mars", "prefix", "dual", "interval")
# Name of a rule -> field of the generation config that the number behind it stands for.
UNMASKING_NUMBERS = {
    "quota": None,
    "threshold": "unmask_threshold",
    "local": "unmask_relaxed_threshold",
    "factor": "unmask_factor",
    "entropy": "unmask_entropy_bound",
    "klass": "unmask_stable_threshold",
    "prophet": "unmask_gap",
    "wino": "unmask_draft_threshold",
}
DTYPES = ("auto", "float32", "bfloat16", "float16")


def parse_cache(text: str) -> tuple[str, dict[str, Any]]:
    """A strategy as it is typed: `NAME`, or `NAME:` and its settings as JSON.

    Raises:
        ValueError: an unknown name, or what follows the colon is no JSON object.
    """
    name, colon, rest = text.partition(":")
    _check_name("cache_strategy", name, CACHE_NAMES)
    try:
        settings = json.loads(rest) if colon else {}
    except ValueError as error:
        raise ValueError(f"The settings in {text!r} are no JSON ({error}): write {name}:{{...}}.") from error
    if not isinstance(settings, dict):
        raise ValueError(f"The settings in {text!r} must be a JSON object: write {name}:{{...}}.")
    return name, settings


def parse_unmasking(text: str) -> tuple[str, float | None]:
    """A rule as it is typed: `NAME`, or `NAME:NUMBER`.

    Raises:
        ValueError: an unknown name, what is no number, or a number that the rule does not take.
    """
    name, colon, rest = text.partition(":")
    _check_name("unmasking", name, UNMASKING_NUMBERS)
    try:
        number = float(rest) if colon else None
    except ValueError as error:
        raise ValueError(f"{rest!r} in {text!r} is no number: write {name}:0.9, say.") from error
    if number is not None and UNMASKING_NUMBERS[name] is None:
        raise ValueError(f"The unmasking rule {name!r} takes no number, got {number:g}.")
    return name, number


def check_dtype(name: str) -> str:
    """The name of a dtype of weights, "auto" for that which is stored; a ValueError for another."""
    if name not in DTYPES:
        raise ValueError(f"`dtype` must be one of {', '.join(map(repr, DTYPES))}, got {name!r}.")
    return name


def _check_name(setting: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise ValueError(f"Unknown `{setting}` {name!r}; known are {', '.join(map(repr, known))}.")


__all__ = ["CACHE_NAMES", "DTYPES", "UNMASKING_NUMBERS", "check_dtype", "parse_cache", "parse_unmasking"]
