"""What all tests share: the numbers recorded from the official code, and repeatable torch."""

import os
from pathlib import Path

import pytest
import torch

from .golden_model import GOLDEN, RECORDING, SELECTION


@pytest.fixture(scope="session")
def golden() -> Path:
    """The full recording, or where there is none the selection of it in the repository."""
    if RECORDING is None and os.environ.get("VIDLADA_REQUIRE_GOLDEN"):
        pytest.fail("VIDLADA_REQUIRE_GOLDEN is set, but there is no full recording (set VIDLADA_GOLDEN).")
    return GOLDEN


@pytest.fixture(scope="session")
def recording() -> Path:
    """The full recording, of which the selection was made. Without it a test skips."""
    if RECORDING is not None and not RECORDING.samefile(SELECTION):
        return RECORDING
    message = "needs the full recording of the official code (set VIDLADA_GOLDEN)"
    if os.environ.get("VIDLADA_REQUIRE_GOLDEN"):
        pytest.fail(f"VIDLADA_REQUIRE_GOLDEN is set: {message}")
    pytest.skip(message)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)
