import random
import shutil

import numpy as np
import pytest
import torch

from tests.training.test_trainer import trainer
from vidlada_hf.training.checkpointing import last_checkpoint, load_state, random_state, save_state, set_random_state


def test_states_round_trip(tmp_path):
    state = {"a": {0: torch.arange(3), 1: [1.5, None, True]}, "b": ("x", (2, torch.ones(2, 2)))}
    save_state(state, tmp_path / "state")
    again = load_state(tmp_path / "state")
    assert list(again["a"]) == [0, 1] and again["a"][1] == [1.5, None, True] and again["b"][0] == "x"
    assert isinstance(again["b"], tuple) and torch.equal(again["b"][1][1], torch.ones(2, 2))
    with pytest.raises(TypeError, match="/a: set"):
        save_state({"a": {1}}, tmp_path / "state")
    (tmp_path / "state.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"state.safetensors is missing"):
        load_state(tmp_path / "state")


def test_random_states_round_trip(tmp_path):
    save_state(random_state(), tmp_path / "random")
    first = (random.random(), np.random.rand(), torch.rand(1).item())
    set_random_state(load_state(tmp_path / "random"))
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == first


@pytest.mark.parametrize("damage", ["missing", "empty state", "cut weights", "no optimizer's JSON", "no random state"])
def test_an_incomplete_checkpoint_is_deleted_and_the_one_before_it_taken(checkpoints, tmp_path, damage):
    shutil.copytree(checkpoints, tmp_path / "run")
    newest = tmp_path / "run" / "checkpoint-4"
    if damage == "missing":
        shutil.rmtree(newest)
        newest.mkdir()
    elif damage == "empty state":
        (newest / "trainer_state.json").write_text("")
    elif damage == "cut weights":
        (newest / "model.safetensors").write_bytes((newest / "model.safetensors").read_bytes()[:-10])
    elif damage == "no optimizer's JSON":
        (newest / "optimizer.json").write_text("[1, ")
    else:
        (newest / "random_0.safetensors").unlink()
    assert last_checkpoint(tmp_path / "run").endswith("checkpoint-3") and not newest.exists()
    assert last_checkpoint(tmp_path / "run", processes=2) is None  # not of so many
    assert last_checkpoint(tmp_path / "nothing") is None


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Of the steps 3 and 4."""
    folder = tmp_path_factory.mktemp("checkpoints")
    trainer(folder, max_steps=4).train()
    return folder
