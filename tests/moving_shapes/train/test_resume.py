import pytest
import torch

from tests.training.helpers import Killed, dying, weights
from vidlada_hf.training import run
from vidlada_hf.training.recipe import Recipe

STAGE = {
    "name": "packed_qa",
    "task": "moving_shapes.train.packed_qa:PackedQATask",
    "options": {"scenes": 4, "group": 2, "text_tokens": 40, "grounding": 0.5},
    "rates": {"tower": 0, "projector": 0, "text": 1e-3, "muon": 1e-3},
    "arguments": {"per_device_train_batch_size": 2, "max_steps": 4, "save_steps": 2, "report_to": []},
}


def test_what_a_stage_draws_is_drawn_again_after_a_kill(tmp_path, monkeypatch):
    """Also what the data loader had drawn ahead when the run died."""

    def recipe(folder) -> Recipe:
        start = "moving_shapes.train.tiny_model:build_tiny"
        return Recipe.from_dict({"model": start, "output_dir": str(folder), "stages": [STAGE]})

    straight = weights(run.train(recipe(tmp_path / "straight")))
    with dying(monkeypatch), pytest.raises(Killed):
        run.train(recipe(tmp_path / "killed"))
    torch.manual_seed(5)
    resumed = weights(run.train(recipe(tmp_path / "killed")))
    for name, tensor in straight.items():
        assert torch.equal(tensor, resumed[name]), name
