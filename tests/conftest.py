"""What all tests share: the golden data recorded from the official code, and quiet, repeatable torch."""

import os
from pathlib import Path

import pytest
import torch

GOLDEN = Path(os.environ.get("VIDLADA_GOLDEN", Path(__file__).parents[2] / "shared" / "golden"))


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden data. It is not part of the repository: without it these tests skip, except in CI."""
    if not (GOLDEN / "manifest.json").is_file():
        message = f"no golden data at {GOLDEN} (set VIDLADA_GOLDEN)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return GOLDEN


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)
