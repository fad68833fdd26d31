import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from moving_shapes.train import ship as module
from moving_shapes.train.ship import ship
from vidlada_hf.hub.locate import EMBEDDED_CHECKPOINT

LOG = [{"step": 1, "loss": "2.0", "color_accuracy": 0.5}, {"step": 2, "loss": 1.0}, {"train_runtime": 90.0}]


@pytest.fixture
def run(tmp_path):
    """The folders of a run of two stages."""
    for name in ("1-vision", "10-sft"):
        model = tmp_path / "run" / name / "model"
        model.mkdir(parents=True)
        (model.parent / "log.json").write_text(json.dumps(LOG))
        (model / "model.safetensors").write_text(name)
        (model / "heads.safetensors").write_text("heads")
        (model / "modeling_vidlada.py").write_text("the package's own code")
    return tmp_path / "run"


def test_a_run_is_shipped_without_heads_and_code_and_with_its_demo_and_log(tmp_path, run):
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "README.md").write_text("card")
    assert ship(run, checkpoint, tmp_path) == {"1-vision": 1.5, "10-sft": 1.5}
    assert (checkpoint / "model.safetensors").read_text() == "10-sft"
    assert {file.name for file in checkpoint.iterdir()} == {"README.md", "model.safetensors", "demo"}
    assert {file.name for file in (checkpoint / "demo").iterdir()} == {"clip.mp4", "questions.jsonl"}
    assert list(json.loads((tmp_path / "tiny_training.json").read_text())["log"]) == ["1-vision", "10-sft"]
    assert (tmp_path / "tiny_training.png").stat().st_size > 1000


def test_the_stages_of_a_run_that_continues_follow_those_before(tmp_path, run):
    checkpoint = tmp_path / "checkpoint"
    ship(run, checkpoint, tmp_path)
    (run / "10-sft").rename(run / "2-sft")
    stages = list(ship(run, checkpoint, tmp_path, continues=True))
    assert stages == ["1-vision", "10-sft", "3-vision", "4-sft"]
    assert list(json.loads((tmp_path / "tiny_training.json").read_text())["log"]) == stages


def test_the_mean_of_two_stages_is_shipped(tmp_path, run):
    last, other = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 0.0], dtype=torch.bfloat16)
    save_file({"weight": last}, run / "10-sft" / "model" / "model.safetensors")
    save_file({"weight": other}, run / "1-vision" / "model" / "model.safetensors")
    ship(run, tmp_path / "checkpoint", tmp_path, mean_with="1-vision")
    weights = load_file(tmp_path / "checkpoint" / "model.safetensors")["weight"]
    assert weights.dtype == torch.float32 and weights.tolist() == [2.0, 1.0]


def test_configurations_lose_the_names_of_code(tmp_path, run):
    fields = {"auto_map": {"AutoModel": "modeling_vidlada.Model"}, "custom_pipelines": {}, "nested": {"auto_map": {}}}
    (run / "10-sft" / "model" / "config.json").write_text(json.dumps(fields | {"size": 3}))
    ship(run, tmp_path / "checkpoint", tmp_path)
    assert json.loads((tmp_path / "checkpoint" / "config.json").read_text()) == {"nested": {}, "size": 3}


def test_a_large_model_is_not_embedded(tmp_path, run, monkeypatch):
    monkeypatch.setattr(module, "LIMIT", 3)
    with pytest.raises(ValueError, match="more than the 0 that may be embedded"):
        ship(run, tmp_path / "checkpoint", tmp_path)
    assert not (tmp_path / "checkpoint").exists()


def test_the_embedded_checkpoint_holds_nothing_of_training():
    files = {str(file.relative_to(EMBEDDED_CHECKPOINT)) for file in EMBEDDED_CHECKPOINT.rglob("*") if file.is_file()}
    assert "model.safetensors" in files and "demo/clip.mp4" in files and "heads.safetensors" not in files
