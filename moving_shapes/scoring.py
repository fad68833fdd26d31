"""Whether an answer is right: by words for short answers, fact by fact for captions."""

from typing import NamedTuple

from .facts import split_facts
from .questions import Question
from .vocabulary import normalize


class FactCounts(NamedTuple):
    """How many `stated` facts (repeats counted once) are `right`, of the `expected` ones."""

    right: int
    stated: int
    expected: int

    @property
    def share(self) -> float:
        """The share of right facts, 0..1, of those expected, or of those stated where these are more."""
        return self.right / max(self.stated, self.expected)


def is_right(question: Question, text: str) -> bool:
    """Whether a text is the answer in either wording: the same words, capitals and a final full stop aside."""
    return normalize(text) in {normalize(answer) for answer in question.answers}


def count_facts(question: Question, text: str) -> FactCounts:
    """Compares the sentences of a text with those of the answer, as sets."""
    stated = set(split_facts(text))
    expected = {normalize(fact) for fact in question.facts}
    return FactCounts(len(stated & expected), len(stated), len(expected))


__all__ = ["FactCounts", "count_facts", "is_right"]
