"""Choices among which an answer is looked for, by their log-likelihoods."""

from collections.abc import Sequence
from typing import Any


def check_choices(choices: Any) -> list[str]:
    """The choices of one question.

    Raises:
        ValueError: not a list of texts, fewer than two, an empty or a repeated one.
    """
    if not isinstance(choices, (list, tuple)) or not all(isinstance(choice, str) for choice in choices):
        raise ValueError(f"Choices must be a list of texts, got {choices!r}.")
    if len(choices) < 2:
        raise ValueError(f"At least two choices are needed to choose from, got {list(choices)!r}.")
    seen: set[str] = set()
    for choice in choices:
        text = choice.strip()
        if not text or text in seen:
            raise ValueError(
                f"The choices {list(choices)!r} hold {'a repeated' if text else 'an empty'} one ({choice!r}): give "
                "each answer once, with at least one character."
            )
        seen.add(text)
    return list(choices)


def rank_choices(choices: Sequence[str], scores: Sequence[float]) -> list[tuple[str, float]]:
    """Choices with their log-likelihoods in nats, the best first."""
    return sorted(zip(choices, scores, strict=True), key=lambda pair: -pair[1])


__all__ = ["check_choices", "rank_choices"]
