import importlib.util
from pathlib import Path

import pytest

from tests.tiny_models import write_tiny_checkpoint

FILE = Path(__file__).parents[2] / "examples" / "finetune_lora.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("finetune_lora", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_short_enough_to_read():
    assert len(FILE.read_text().splitlines()) < 90


def test_the_answers_are_those_of_the_scenes(example):
    messages = [conversation["messages"] for conversation in map(example.Quarters(40).__getitem__, range(40))]
    assert {answer["content"] for _, answer in messages} == {"up left", "up right", "down left", "down right"}
    assert messages[3][0]["content"][0]["video"].shape == (8, 64, 64, 3)


def test_it_runs_on_an_untrained_model(example, tmp_path):
    base = write_tiny_checkpoint(tmp_path / "base")
    assert example.main(str(base), steps=1, count=4, out=str(tmp_path / "adapter")) == (0, 0)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_the_adapter_learns_what_the_embedded_checkpoint_does_not_know(example, tmp_path):
    before, after = example.main(steps=40, count=50, out=str(tmp_path / "adapter"))
    assert before < 0.1 and after > before + 0.3
