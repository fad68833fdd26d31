"""The words of the benchmark: what a word-level tokenizer must know, and how a text is cut into them."""

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
    """Cuts a text into words and marks, in lower case: "The circle is red." is `the circle is red .`, five words."""
    return re.findall(PIECES, text.lower())


def normalize(text: str) -> str:
    """A text as its words with a blank between them, without the last full stop: how answers are compared."""
    return " ".join(words(text)).removesuffix(".").strip()


__all__ = ["LETTERS", "NUMBERS", "ORDINALS", "PIECES", "VOCABULARY", "normalize", "words"]
