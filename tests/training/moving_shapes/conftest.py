"""Small lessons of an untrained model."""

import pytest

from vidlada_hf.training.moving_shapes.lessons import Lessons
from vidlada_hf.training.moving_shapes.tiny import build_tiny

GROUP = 4


@pytest.fixture(scope="module")
def parts():
    """A model with its processor."""
    return build_tiny()


def lesson(parts, **options) -> Lessons:
    """Lessons in groups of four."""
    return Lessons(*parts, **({"scenes": 8, "group": GROUP} | options))
