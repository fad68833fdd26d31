import json

import pytest

from .conftest import run


@pytest.mark.slow
def test_loaders_are_timed_beside_training(tmp_path):
    run("data_loading", "--quick", "--output", tmp_path / "loading.json")
    speeds = json.loads((tmp_path / "loading.json").read_text())["samples_per_second"]
    assert {"files, 0 workers", "files, 2 workers", "kept frames, 0 workers"} <= speeds["reading"].keys()
    assert "alone, frames in memory" in speeds["training"]
    assert all(speed > 0 for kind in speeds.values() for speed in kind.values())
