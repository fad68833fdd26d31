import shutil

import pytest

from tests.training.helpers import recipe
from vidlada_hf.training import run
from vidlada_hf.training.memory_estimate import plan
from vidlada_hf.training.model_loading import load_model
from vidlada_hf.training.recipe import Recipe


def test_a_start_that_is_not_there_is_reported_before_anything_runs(tmp_path):
    """Written as a path it is not looked for on the Hub, which takes a minute of retries without a network."""
    for begin in (run.train, plan):
        with pytest.raises(FileNotFoundError, match="./models/none is no folder"):
            begin(Recipe.from_dict(recipe(tmp_path / "run").as_dict() | {"model": "./models/none"}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("start", ["nosuch_module:build", "json:nosuch", "json:__name__"])
def test_a_start_that_no_function_builds_is_refused(tmp_path, start):
    with pytest.raises(ValueError, match=f"`model` is '{start}', which is no folder and no 'module:function'"):
        run.train(Recipe.from_dict(recipe(tmp_path / "run").as_dict() | {"model": start}))


def test_a_damaged_start_is_named(finished, tmp_path):
    start = tmp_path / "start"
    shutil.copytree(finished, start)
    (start / "model.safetensors").write_bytes((start / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(ValueError, match=f"A file of weights in {start} is damaged"):
        load_model(str(start), 0)
