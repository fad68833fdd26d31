"""The words of the benchmark: the vocabulary of a word-level tokenizer, and how a text is split into words."""

import re

from .scenes.scene import COLORS, MOTIONS, SHAPES

NUMBERS = ("one", "two", "three", "four", "five")
ORDINALS = ("first", "second", "third", "fourth", "fifth")
LETTERS = ("(a)", "(b)", "(c)", "(d)")
MARKS = ("?", ".", ",")
_WORDS = (
    "a any appear appears are at back change changes color describe different disappear disappears does end from half"
    " how in is last many move moves no none not shape shapes start stay stays the there time times top turns video"
    " what when which yes"
)

VOCABULARY: tuple[str, ...] = tuple(
    sorted({*COLORS, *SHAPES, *MOTIONS, *NUMBERS, *ORDINALS, *LETTERS, *MARKS, *_WORDS.split()})
)

PIECES = r"\([a-d]\)|[a-z]+|[?.,]"


def words(text: str) -> list[str]:
    """Splits a text into words and marks, in lower case: "The circle is red." is `the circle is red .`, five words."""
    return re.findall(PIECES, text.lower())


def normalize(text: str) -> str:
    """The form in which answers are compared: words with a blank between them, without a final full stop."""
    return " ".join(words(text)).removesuffix(".").strip()


__all__ = ["LETTERS", "NUMBERS", "ORDINALS", "PIECES", "VOCABULARY", "normalize", "words"]
