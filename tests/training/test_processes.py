"""Two processes that share each batch, over gloo: the losses and weights of one process, killed and resumed or not.

Tolerances: float32 sums in another order; AdamW divides gradients by their own size, so that what is rounding in a
gradient near 0 becomes up to a whole step of the rate in a weight. Rates are small, and weights agree within 1e-5.
"""

import json
import os
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.training.test_run import TINY
from vidlada_hf.training import run
from vidlada_hf.training.conversations import Conversations
from vidlada_hf.training.recipe import Recipe

pytestmark = pytest.mark.slow

STEPS = 4
DATA = {"source": "moving_shapes", "length": 16, "frames": [2], "types": ["color", "shape"], "long": 0}


class Doomed(Conversations):
    """Dies once in its third step, at the first sight of a file that says so; the file is gone then."""

    steps = 0

    def forward(self, **batch):
        self.steps += 1
        doom = Path(os.environ["VIDLADA_TEST_DOOM"])
        if self.steps == 3 and doom.exists() and os.environ.get("RANK") == "1":
            doom.unlink()
            os._exit(9)
        return super().forward(**batch)


def recipe(folder: Path, batch_size: int, accumulate: int = 1) -> Path:
    """A file with a recipe of four examples a step."""
    stage = {
        "name": "one",
        "task": f"{__name__}:Doomed",
        "options": {"data": DATA},
        "rates": {"tower": 1e-5, "projector": 1e-4, "text": 1e-4},
        "arguments": {
            "per_device_train_batch_size": batch_size,
            "gradient_accumulation_steps": accumulate,
            "max_steps": STEPS,
            "save_steps": 2,
            "logging_steps": 1,
            "report_to": [],
            "disable_tqdm": True,
        },
    }
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump({"model": TINY, "output_dir": str(folder / "run"), "stages": [stage]}))
    return file


def results(folder: Path) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses of the steps, and the weights."""
    stage = folder / "run" / "1-one"
    log = json.loads((stage / "log.json").read_text())
    return [line["loss"] for line in log if "loss" in line], load_file(stage / "model" / "model.safetensors")


def assert_equal(one, other) -> None:
    torch.testing.assert_close(torch.tensor(one[0]), torch.tensor(other[0]), rtol=1e-3, atol=1e-3)  # logged rounded
    for name, tensor in one[1].items():
        torch.testing.assert_close(tensor, other[1][name], rtol=0, atol=1e-5, msg=name)


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("VIDLADA_TEST_DOOM", str(tmp_path_factory.mktemp("doom") / "doom"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process with the whole batch."""
    folder = tmp_path_factory.mktemp("alone")
    os.environ.setdefault("VIDLADA_TEST_DOOM", str(folder / "none"))
    run.train(Recipe.from_yaml(recipe(folder, batch_size=4)))
    return results(folder)


def test_accumulated_steps_are_those_of_the_whole_batch(alone, tmp_path):
    run.train(Recipe.from_yaml(recipe(tmp_path, batch_size=1, accumulate=4)))
    assert_equal(alone, results(tmp_path))


def test_two_processes_may_accumulate_too(alone, tmp_path):
    run.launch(recipe(tmp_path, batch_size=1, accumulate=2), 2)
    assert_equal(alone, results(tmp_path))


def test_two_processes_train_as_one_also_killed_and_resumed(alone, tmp_path):
    """Killed for good in the third step, resumed from the checkpoint of the second."""
    file = recipe(tmp_path, batch_size=2)
    doom = Path(os.environ["VIDLADA_TEST_DOOM"])
    doom.touch()
    with pytest.raises(ValueError, match="The run in 2 processes ended with the exit code"):
        run.launch(file, 2)
    assert not doom.exists() and not (tmp_path / "run" / "1-one" / "model").exists()
    assert (tmp_path / "run" / "1-one" / "checkpoint-2").is_dir()
    run.launch(file, 2)
    assert_equal(alone, results(tmp_path))
