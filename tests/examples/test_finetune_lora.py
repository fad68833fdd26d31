import importlib.util
from pathlib import Path

import pytest
from vidlada_hf.asking import EMBEDDED_CHECKPOINT

from moving_shapes.train.tiny_model import build_tiny

FILE = Path(__file__).parents[2] / "examples" / "finetune_lora.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("finetune_lora", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_short_enough_to_read():
    assert len(FILE.read_text().splitlines()) < 60


def test_the_truth_is_the_scenes(example):
    examples = list(example.Quarters("train", 40))
    assert {e["messages"][1]["content"] for e in examples} == {"up left", "up right", "down left", "down right"}
    assert examples[3]["messages"][0]["content"][0]["video"].shape == (8, 64, 64, 3)


def test_it_runs_on_an_untrained_model(example, tmp_path):
    for part in build_tiny():
        part.save_pretrained(tmp_path / "base")
    assert example.main(str(tmp_path / "base"), steps=1, questions=4, out=str(tmp_path / "adapter")) == (0, 0)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_the_adapter_learns_what_the_embedded_checkpoint_does_not_know(example, tmp_path):
    if not (EMBEDDED_CHECKPOINT / "config.json").is_file():
        pytest.skip("no checkpoint is embedded yet")
    before, after = example.main(steps=60, questions=100, out=str(tmp_path / "adapter"))
    assert before < 0.1 and after > before + 0.3
