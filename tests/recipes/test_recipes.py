"""The shipped recipes: read as they are, and the paper's curriculum run from end to end with a tiny model."""

import json
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from tests.llava_files import write_llava
from tests.training.helpers import TINY
from vidlada_hf.training import run
from vidlada_hf.training.recipe import Recipe

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = {
    "max_steps": 2,
    "per_device_train_batch_size": 2,
    "dataloader_num_workers": 1,
    "dataloader_prefetch_factor": 1,
    "bf16": False,
    "logging_steps": 1,
    "report_to": [],
    "disable_tqdm": True,
}


@pytest.mark.parametrize("file", sorted(RECIPES.glob("*.yaml")), ids=lambda file: file.name)
def test_recipes_can_be_read(file):
    recipe = Recipe.from_yaml(file)
    assert recipe.stages


def test_the_papers_curriculum_has_its_three_stages():
    stages = Recipe.from_yaml(RECIPES / "vidlada_8b.yaml").stages
    frames = [stage.options["processor_options"]["num_frames"] for stage in stages]
    contexts = [stage.options["labels"]["max_length"] for stage in stages]
    assert (frames, contexts) == ([32, 64, 64], [8192, 16384, 16384])
    for stage in stages:
        assert {name: stage.rates[name] for name in ("tower", "projector", "text")} == {
            "tower": 2e-6,
            "projector": 1e-5,
            "text": 1e-5,
        }
        assert stage.arguments["lr_scheduler_type"] == "cosine" and stage.arguments["warmup_steps"] == 0.03


def test_it_runs_from_end_to_end_on_clips(tmp_path):
    """Tiny: another model, 4 to 8 frames, and 6 clips in the format of the real data."""
    shared = yaml.safe_load((RECIPES / "vidlada_8b.yaml").read_text())  # what is written once is one object
    content = json.loads(json.dumps(shared))
    content |= {"model": TINY, "output_dir": str(tmp_path / "run")}
    write_llava(tmp_path, 6)
    (tmp_path / "list.yaml").write_text("datasets:\n  - json_path: records.json\n    sampling_strategy: first:80%\n")
    for stage in content["stages"]:
        options = stage["options"]
        options["data"] |= {"path": str(tmp_path / "list.yaml"), "video_folder": str(tmp_path)}
        options["processor_options"]["num_frames"] //= 8
        options["labels"]["max_length"] //= 16
        stage["arguments"] |= SMALL
        stage["batch_size"] = 4
    stages = run.train(Recipe.from_dict(content)).parents[1]
    weights = [load_file(folder / "model" / "model.safetensors") for folder in sorted(stages.iterdir())]
    assert len(weights) == 3
    for before, after in zip(weights, weights[1:], strict=False):
        assert any(not before[name].equal(after[name]) for name in before)
    for folder in stages.iterdir():
        assert json.loads((folder / "log.json").read_text())[0]["loss"] > 0
        assert not (folder / "skipped.jsonl").exists()


def test_accelerates_configurations_name_the_models_layers():
    """Their keys are checked by accelerate itself; `training/test_launch` runs them."""
    from accelerate.commands.config.config_args import load_config_from_file

    from vidlada_hf import VidLaDAForConditionalGeneration

    fsdp = load_config_from_file(str(RECIPES / "accelerate" / "fsdp.yaml"))
    wrapped = fsdp.fsdp_config["fsdp_transformer_layer_cls_to_wrap"].split(",")
    assert wrapped == VidLaDAForConditionalGeneration._no_split_modules
    zero = load_config_from_file(str(RECIPES / "accelerate" / "deepspeed_zero3.yaml"))
    file = RECIPES.parent / zero.deepspeed_config["deepspeed_config_file"]
    assert json.loads(file.read_text())["zero_optimization"]["stage"] == 3
