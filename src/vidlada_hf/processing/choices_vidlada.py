"""Choices among which an answer is looked for, by their log-likelihoods."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Choosing:
    """A request to the pipeline with choices of its own."""

    request: Any
    choices: list[str]


def is_nested(choices: Any) -> bool:
    """Whether these are lists of choices, one for each question."""
    return isinstance(choices, (list, tuple)) and any(isinstance(each, (list, tuple)) for each in choices)


def give_each(requests: Any, choices: Sequence[Any], is_one: bool) -> list[Choosing]:
    """Requests with a list of choices each.

    Args:
        is_one: it is one request, not a list of them.

    Raises:
        ValueError: not as many of both; or requests that cannot be counted.
    """
    if is_one or not isinstance(requests, (list, tuple)):
        raise ValueError("Lists of choices belong to a list of questions: give this one a list of texts.")
    if len(choices) != len(requests):
        raise ValueError(
            f"Got {len(requests)} questions and {len(choices)} lists of choices: give one list for each, or one."
        )
    return [Choosing(request, check_choices(own)) for request, own in zip(requests, choices, strict=True)]


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


__all__ = ["Choosing", "check_choices", "give_each", "is_nested", "rank_choices"]
