"""Train, validation and test: what each may show.

A combination is a (color, shape). Eight of the 48 are only ever shown in the test split and eight others only in the
validation split: every color once, every shape at least once. Every test scene shows at least one of the test's own,
beside combinations of training, so no test scene could be a training scene. Backgrounds are disjoint altogether, and so
are the seeds.
"""

from dataclasses import dataclass

from .scene import COLORS, SHAPES

Look = tuple[str, str]

TEXTURES = ("plain", "gradient", "stripes", "checks")
TONES = ("dark", "gray", "light")
BACKGROUNDS = tuple(f"{texture} {tone}" for texture in TEXTURES for tone in TONES)

_TEST_BACKGROUNDS = ("stripes dark", "gradient light")
_VALIDATION_BACKGROUNDS = ("checks gray", "stripes light")


def _diagonal(offset: int) -> tuple[Look, ...]:
    """One shape for each color."""
    return tuple((color, SHAPES[(i + offset) % len(SHAPES)]) for i, color in enumerate(COLORS))


_TEST_LOOKS, _VALIDATION_LOOKS = _diagonal(0), _diagonal(2)
_TRAIN_LOOKS = tuple(
    (color, shape) for color in COLORS for shape in SHAPES if (color, shape) not in _TEST_LOOKS + _VALIDATION_LOOKS
)


@dataclass(frozen=True)
class Split:
    """What the scenes of a split are made of.

    Args:
        name: "train", "validation" or "test".
        number: what sets its seeds apart from those of other splits.
        held_out: combinations that no other split shows; every scene shows at least one. Empty for training.
        shared: combinations that training shows too.
        backgrounds: that no other split shows.
    """

    name: str
    number: int
    held_out: tuple[Look, ...]
    shared: tuple[Look, ...]
    backgrounds: tuple[str, ...]

    @property
    def looks(self) -> tuple[Look, ...]:
        """All combinations that its scenes and its questions may name."""
        return self.shared + self.held_out


SPLITS = {
    split.name: split
    for split in (
        Split(
            "train",
            0,
            (),
            _TRAIN_LOOKS,
            tuple(b for b in BACKGROUNDS if b not in _TEST_BACKGROUNDS + _VALIDATION_BACKGROUNDS),
        ),
        Split("validation", 1, _VALIDATION_LOOKS, _TRAIN_LOOKS, _VALIDATION_BACKGROUNDS),
        Split("test", 2, _TEST_LOOKS, _TRAIN_LOOKS, _TEST_BACKGROUNDS),
    )
}


def get_split(name: str) -> Split:
    """The split of that name; ValueError for another name."""
    if name not in SPLITS:
        raise ValueError(f"There is no split {name!r}: pass one of {', '.join(map(repr, SPLITS))}.")
    return SPLITS[name]


__all__ = ["BACKGROUNDS", "SPLITS", "Look", "Split", "get_split"]
