"""A finished run of two stages, which several modules look at."""

from pathlib import Path

import pytest

from tests.training.helpers import recipe
from vidlada_hf.training import run


@pytest.fixture(scope="package")
def finished(tmp_path_factory) -> Path:
    """The model that the run of `helpers.recipe` has left."""
    return run.train(recipe(tmp_path_factory.mktemp("finished")))
