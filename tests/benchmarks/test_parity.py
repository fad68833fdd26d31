import json
import os
import sys

import pytest

from tests import processes
from tests.golden import SELECTION

from .conftest import FOLDER


@pytest.mark.slow
def test_it_measures_the_selection_where_there_is_nothing_else(tmp_path):
    command = [sys.executable, FOLDER / "parity.py", "--output", tmp_path / "parity.json"]
    done = processes.run(command, env=os.environ | {"VIDLADA_GOLDEN": str(SELECTION)})
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith(f"Measuring on the selection in the repository: {SELECTION}\n")
    results = json.loads((tmp_path / "parity.json").read_text())
    assert results["measured_on"] == "the selection in the repository"
    equal, of, total = results["figures"].pop("generations with equal tokens").split()
    assert (of, equal) == ("of", total) and int(total) > 0
    assert all(difference < 2e-3 for difference in results["figures"].values())
