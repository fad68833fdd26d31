"""A small packed question answering task with an untrained model."""

import pytest

from moving_shapes.train.packed_qa import PackedQATask
from moving_shapes.train.tiny_model import build_tiny

GROUP = 4


@pytest.fixture(scope="module")
def parts():
    """A model with its processor."""
    return build_tiny()


def small_task(parts, **options) -> PackedQATask:
    """8 scenes in groups of four."""
    return PackedQATask(*parts, **({"scenes": 8, "group": GROUP} | options))
