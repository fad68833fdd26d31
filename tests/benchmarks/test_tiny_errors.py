import json

import pytest

from .conftest import run


@pytest.mark.slow
def test_the_embedded_checkpoints_mistakes(tmp_path):
    errors = run("tiny_errors", "--questions", 2, "--output", tmp_path / "errors.json")
    found = json.loads((tmp_path / "errors.json").read_text())
    for split in ("test", "train"):
        assert all(errors.total(of_type)[1] == 2 for of_type in found[split].values())
        assert all(of_type["held out"][1] + of_type["shown"][1] == 2 for of_type in found[split].values())
    assert all(of_type["held out"] == [0, 0] for of_type in found["train"].values())
    assert any(of_type["held out"][1] for of_type in found["test"].values())
