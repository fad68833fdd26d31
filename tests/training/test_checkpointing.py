import json
import random
import shutil

import numpy as np
import pytest
import torch
from transformers.testing_utils import CaptureLogger

from tests.training.test_trainer import trainer
from vidlada_hf.hub.checksums import CHECKSUMS, write_checksums
from vidlada_hf.training import checkpointing
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


@pytest.mark.parametrize(
    "damage",
    ["missing", "empty state", "cut weights", "changed weights", "damaged JSON", "no random state", "no checksums"],
)
def test_a_checkpoint_that_is_not_whole_is_set_aside_and_the_one_before_it_taken(checkpoints, tmp_path, damage):
    shutil.copytree(checkpoints, tmp_path / "run")
    newest = tmp_path / "run" / "checkpoint-4"
    if damage == "missing":
        shutil.rmtree(newest)
        newest.mkdir()
    elif damage == "empty state":
        (newest / "trainer_state.json").write_text("")
    elif damage == "cut weights":
        (newest / "model.safetensors").write_bytes((newest / "model.safetensors").read_bytes()[:-10])
    elif damage == "changed weights":  # one bit, behind a header that is whole
        weights = bytearray((newest / "model.safetensors").read_bytes())
        weights[-7] ^= 1
        (newest / "model.safetensors").write_bytes(weights)
    elif damage == "no checksums":
        (newest / CHECKSUMS).unlink()
    elif damage == "damaged JSON":
        (newest / "optimizer.json").write_text("[1, ")
    else:
        (newest / "random_0.safetensors").unlink()
    with CaptureLogger(checkpointing.logger) as said:
        assert last_checkpoint(tmp_path / "run").endswith("checkpoint-3") and not newest.exists()
    assert "checkpoint-4 is not whole" in said.out and "damaged-checkpoint-4" in said.out
    assert (tmp_path / "run" / "damaged-checkpoint-4").is_dir()
    with CaptureLogger(checkpointing.logger) as said:
        assert last_checkpoint(tmp_path / "run").endswith("checkpoint-3") and not said.out
    assert last_checkpoint(tmp_path / "nothing") is None


def test_without_a_whole_checkpoint_the_run_begins_anew_and_nothing_is_lost(checkpoints, tmp_path):
    shutil.copytree(checkpoints, tmp_path / "run")
    for folder in (tmp_path / "run").glob("checkpoint-*"):
        (folder / "optimizer.safetensors").unlink()
    with CaptureLogger(checkpointing.logger) as said:
        assert last_checkpoint(tmp_path / "run") is None
    assert said.out.count("goes on from the beginning") == 2
    shutil.copytree(checkpoints / "checkpoint-4", tmp_path / "run" / "checkpoint-5")
    (tmp_path / "run" / "checkpoint-5" / CHECKSUMS).write_text("nonsense\n")
    assert last_checkpoint(tmp_path / "run") is None
    assert [folder.name for folder in (tmp_path / "run").iterdir()] == ["damaged-checkpoint-5"]


def test_checksums_cover_all_and_are_those_of_sha256sum(checkpoints):
    folder = checkpoints / "checkpoint-4"
    names = {line.split("  ")[1] for line in (folder / CHECKSUMS).read_text().splitlines()}
    assert names == {file.name for file in folder.iterdir()} - {CHECKSUMS}
    assert {"model.safetensors", "optimizer.safetensors", "trainer_state.json", "random_0.safetensors"} <= names


def test_a_damaged_checkpoint_that_is_named_is_refused(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints / "checkpoint-4", tmp_path / "checkpoint-4")
    (folder / "optimizer.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="checkpoint-4 is not whole .optimizer.safetensors: is damaged"):
        trainer(tmp_path).train(resume_from_checkpoint=str(folder))


def test_older_checkpoints_go_when_the_new_one_is_whole(tmp_path, monkeypatch):
    """Also with a limit of one: a run that is killed while it hashes still has the one before."""
    run = trainer(tmp_path, max_steps=6, save_total_limit=1)
    killed = iter([write_checksums, None])  # at the second checkpoint
    monkeypatch.setattr("vidlada_hf.training.trainer.write_checksums", lambda folder: next(killed)(folder))
    with pytest.raises(TypeError):
        run.train()
    assert last_checkpoint(tmp_path).endswith("checkpoint-3")
    monkeypatch.undo()
    resumed = trainer(tmp_path, max_steps=6, save_total_limit=1)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 6 and [f.name for f in tmp_path.glob("checkpoint-*")] == ["checkpoint-6"]
    assert json.loads((tmp_path / "checkpoint-6" / "training_args.json").read_text())["save_total_limit"] == 1


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Of the steps 3 and 4."""
    folder = tmp_path_factory.mktemp("checkpoints")
    trainer(folder, max_steps=4).train()
    return folder
