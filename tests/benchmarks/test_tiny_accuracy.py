import json

import pytest

from .conftest import run


@pytest.mark.slow
def test_the_embedded_checkpoints_accuracy(tmp_path):
    run("tiny_accuracy", "--questions", 21, "--only", "8 frames, gray video", "--output", tmp_path / "accuracy.json")
    found = json.loads((tmp_path / "accuracy.json").read_text())
    assert found["8 frames, gray video"]["scores"]["all"]["questions"] == 10
