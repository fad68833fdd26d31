"""What all tests share: the numbers recorded from the official code, and repeatable torch."""

import os
from pathlib import Path

# Models are so small that a second thread only costs time, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from .golden import GOLDEN, RECORDING


@pytest.fixture(scope="session")
def golden() -> Path:
    """The full recording, or where there is none the selection of it in the repository."""
    return GOLDEN


@pytest.fixture(scope="session")
def recording() -> Path:
    """The full recording. Without it a test skips, or with VIDLADA_REQUIRE_GOLDEN=1 fails."""
    if RECORDING is None:
        outcome = pytest.fail if os.environ.get("VIDLADA_REQUIRE_GOLDEN") == "1" else pytest.skip
        outcome("This test needs the full recording of the official code: set VIDLADA_GOLDEN to its folder.")
    return RECORDING


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)
