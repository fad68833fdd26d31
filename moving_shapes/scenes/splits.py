"""Train, validation and test: which combinations and backgrounds each contains.

A combination is a (color, shape). Eight of the 48 are held out for the test split and eight others for the validation
split: each color once, each shape at least once. Each test scene contains at least one combination that is held out for
it, beside those of training, so no test scene could be a training scene. Backgrounds and seeds are disjoint.
"""

from dataclasses import dataclass

from .scene import COLORS, SHAPES

Combination = tuple[str, str]

TEXTURES = ("plain", "gradient", "stripes", "checks")
TONES = ("dark", "gray", "light")
BACKGROUNDS = tuple(f"{texture} {tone}" for texture in TEXTURES for tone in TONES)

_TEST_BACKGROUNDS = ("stripes dark", "gradient light")
_VALIDATION_BACKGROUNDS = ("checks gray", "stripes light")


def _diagonal(offset: int) -> tuple[Combination, ...]:
    """One shape for each color."""
    return tuple((color, SHAPES[(i + offset) % len(SHAPES)]) for i, color in enumerate(COLORS))


_TEST_ONLY, _VALIDATION_ONLY = _diagonal(0), _diagonal(2)
_TRAIN = tuple(
    (color, shape) for color in COLORS for shape in SHAPES if (color, shape) not in _TEST_ONLY + _VALIDATION_ONLY
)


@dataclass(frozen=True)
class Split:
    """What the scenes of a split are made of.

    Args:
        name: "train", "validation" or "test".
        number: part of its seeds, another one for each split.
        held_out: combinations of this split alone; each scene contains at least one. Empty for training.
        shared: combinations of training.
        backgrounds: of this split alone.
    """

    name: str
    number: int
    held_out: tuple[Combination, ...]
    shared: tuple[Combination, ...]
    backgrounds: tuple[str, ...]

    @property
    def combinations(self) -> tuple[Combination, ...]:
        """All combinations that its scenes and its questions may contain."""
        return self.shared + self.held_out


SPLITS = {
    split.name: split
    for split in (
        Split(
            "train",
            0,
            (),
            _TRAIN,
            tuple(b for b in BACKGROUNDS if b not in _TEST_BACKGROUNDS + _VALIDATION_BACKGROUNDS),
        ),
        Split("validation", 1, _VALIDATION_ONLY, _TRAIN, _VALIDATION_BACKGROUNDS),
        Split("test", 2, _TEST_ONLY, _TRAIN, _TEST_BACKGROUNDS),
    )
}


def get_split(name: str) -> Split:
    """The split of that name; ValueError for another name."""
    if name not in SPLITS:
        raise ValueError(f"There is no split {name!r}: pass one of {', '.join(map(repr, SPLITS))}.")
    return SPLITS[name]


__all__ = ["BACKGROUNDS", "SPLITS", "Combination", "Split", "get_split"]
