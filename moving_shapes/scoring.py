"""Was the answer right? By words for short answers, fact by fact for captions."""

from typing import NamedTuple

from .facts import split_facts
from .questions import Question
from .vocabulary import normalize


class FactCounts(NamedTuple):
    """How many of the `expected` facts were told, of all that were `told` (repeats counted once)."""

    right: int
    told: int
    expected: int

    @property
    def share(self) -> float:
        """The part that is right, 0..1, of all facts expected, or of all told where those are more."""
        return self.right / max(self.told, self.expected)


def is_right(question: Question, text: str) -> bool:
    """Whether a text is the answer in either of its forms: the same words, capitals and full stops aside."""
    return normalize(text) in {normalize(answer) for answer in question.answers}


def count_facts(question: Question, text: str) -> FactCounts:
    """Compares the sentences of a text with those of the answer, as sets."""
    told = set(split_facts(text))
    expected = {normalize(fact) for fact in question.facts}
    return FactCounts(len(told & expected), len(told), len(expected))


__all__ = ["FactCounts", "count_facts", "is_right"]
