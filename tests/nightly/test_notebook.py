"""The notebook of the examples in a kernel of its own, as a reader runs it."""

import sys
from pathlib import Path

import pytest

from tests import processes

pytestmark = pytest.mark.nightly

NOTEBOOK = Path(__file__).parents[2] / "examples" / "quickstart.ipynb"


def test_every_cell_runs() -> None:
    pytest.importorskip("nbmake", reason="The notebook needs more packages: pip install 'vidlada_hf[notebook]'.")
    options = ["--nbmake", "--nbmake-timeout=900", "-p", "no:cacheprovider"]
    done = processes.run([sys.executable, "-m", "pytest", *options, NOTEBOOK], timeout=1800)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout[-3000:]
