"""Comparisons with exact decoding: how far answers agree, whether they are as often right, how much faster they are."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


def token_agreement(answer: Sequence[int], exact: Sequence[int]) -> float:
    """The share of positions with the same token, 0..1, over the longer of the two answers; 1 where both are empty.

    Args:
        answer, exact: tokens up to the answer's end. What a canvas holds behind it would agree, and say nothing.
    """
    longest = max(len(answer), len(exact))
    return sum(a == b for a, b in zip(answer, exact, strict=False)) / longest if longest else 1.0


@dataclass(frozen=True)
class Agreement:
    """Answers beside those of exact decoding.

    Args:
        tokens: mean `token_agreement` over the questions.
        answers: share of answers that are equal, token by token.
    """

    tokens: float
    answers: float


def compare_answers(answers: Sequence[Sequence[int]], exact: Sequence[Sequence[int]]) -> Agreement:
    """Both in the order of the questions, of which there must be at least one."""
    tokens = [token_agreement(a, e) for a, e in zip(answers, exact, strict=True)]
    same = sum(list(a) == list(e) for a, e in zip(answers, exact, strict=True))
    return Agreement(round(sum(tokens) / len(tokens), 4), round(same / len(tokens), 4))


@dataclass(frozen=True)
class Comparison:
    """Exact match on some questions, and beside it that of exact decoding on the same ones.

    Args:
        questions: how many.
        accuracy, low, high: share of right answers and its 95 % interval (Wilson).
        lost, gained: questions that only exact decoding, or only this one, answers right.
        difference: accuracy minus exact decoding's, in points (hundredths).
        difference_low, difference_high: its 95 % interval, for paired answers (Wald).
        p: probability of at least so large a difference of lost and gained if both were as good (McNemar, exact).
    """

    questions: int
    accuracy: float
    low: float
    high: float
    lost: int
    gained: int
    difference: float
    difference_low: float
    difference_high: float
    p: float


def compare_right(right: Sequence[bool], exact: Sequence[bool]) -> Comparison:
    """Whether each answer is right, and whether exact decoding's is, in the order of the questions (at least one)."""
    total = len(right)
    lost = sum(e and not r for r, e in zip(right, exact, strict=True))
    gained = sum(r and not e for r, e in zip(right, exact, strict=True))
    low, high = wilson(sum(right), total)
    difference = (gained - lost) / total
    width = 1.96 * math.sqrt(max(lost + gained - (gained - lost) ** 2 / total, 0)) / total
    accuracy = sum(right) / total
    return Comparison(
        questions=total,
        accuracy=round(accuracy, 4),
        low=round(low, 4),
        high=round(high, 4),
        lost=lost,
        gained=gained,
        difference=round(100 * difference, 2),
        difference_low=round(100 * (difference - width), 2),
        difference_high=round(100 * (difference + width), 2),
        p=round(sign_test(lost, gained), 4),
    )


def wilson(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson 1927), 0..1."""
    share, spread = right / total, z * z / total
    center, width = share + spread / 2, z * (share * (1 - share) / total + spread / total / 4) ** 0.5
    return (center - width) / (1 + spread), (center + width) / (1 + spread)


def speedup(seconds: Sequence[float], reference_seconds: Sequence[float]) -> float:
    """How many times as fast as the reference: the median over rounds of the ratio within a round."""
    return statistics.median(base / own for own, base in zip(seconds, reference_seconds, strict=True))


def sign_test(lost: int, gained: int) -> float:
    """Probability that fair coins fall at least as unevenly as this, to either side."""
    total = lost + gained
    tail = sum(math.comb(total, i) for i in range(min(lost, gained) + 1))
    return min(1.0, 2 * tail / 2**total)


def compare_by_type(types: Sequence[str], right: Sequence[bool], exact: Sequence[bool]) -> dict[str, Any]:
    """`Comparison`s as plain values, for each type in the order in which they first come, and "all"."""
    comparisons = {}
    for type in dict.fromkeys(types):
        own = [i for i, t in enumerate(types) if t == type]
        comparisons[type] = asdict(compare_right([right[i] for i in own], [exact[i] for i in own]))
    return comparisons | {"all": asdict(compare_right(right, exact))}


__all__ = [
    "Agreement",
    "Comparison",
    "compare_answers",
    "compare_by_type",
    "compare_right",
    "speedup",
    "token_agreement",
    "wilson",
]
