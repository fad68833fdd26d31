"""A tiny model in a setting, and questions for it."""

import pytest

from tests.clips import noise
from tests.tiny_models import build_tiny
from vidlada_hf.evaluation.decoding import DecodingRunner
from vidlada_hf.evaluation.questions import VideoQuestion


@pytest.fixture(scope="session")
def tiny():
    """(model, processor)."""
    return build_tiny()


@pytest.fixture(scope="session")
def questions() -> list[VideoQuestion]:
    """Three, each about a clip of its own."""
    words = {"color": ("What color?", "red"), "shape": ("What shape is it?", "disc"), "motion": ("How?", "left")}
    return [
        VideoQuestion(noise(8, seed=seed), question, (answer,), type)
        for seed, (type, (question, answer)) in enumerate(words.items())
    ]


@pytest.fixture(scope="session")
def runner(tiny) -> DecodingRunner:
    """Denoises a whole canvas of two blocks of 4."""
    return DecodingRunner(*tiny, 8, "canvas", {"max_new_tokens": 8, "block_length": 4})
