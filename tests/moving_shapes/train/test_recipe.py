"""The recipe of vidlada-tiny: its options are valid, and it runs from end to end."""

from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

import moving_shapes.train
from vidlada_hf.hub.locate import EMBEDDED_CHECKPOINT
from vidlada_hf.training.callbacks import DenoisingEvalCallback
from vidlada_hf.training.recipe import Recipe
from vidlada_hf.training.run import train
from vidlada_hf.training.task import find_task

FOLDER = Path(moving_shapes.train.__file__).parent
STAGES = {
    "recipe": (
        "vision",
        "dense_labels",
        "packed_qa",
        "weighted_qa",
        "weighted_qa_annealed",
        "reference",
        "option_letters",
        "reference_again",
        "restricted_sft",
        "sft",
    ),
    "captions": ("captions", "captions_again", "restricted_sft", "sft"),
}


@pytest.mark.parametrize("name", STAGES)
def test_the_options_of_all_stages_are_valid(name):
    recipe = Recipe.from_yaml(FOLDER / f"{name}.yaml")
    assert tuple(stage.name for stage in recipe.stages) == STAGES[name]
    for stage in recipe.stages:
        find_task(stage.task).check(stage.options)
        DenoisingEvalCallback.check(stage.denoising, stage.name)
        assert stage.shared_arguments(2)["max_steps"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_it_runs_from_end_to_end(tmp_path, name):
    """One step of each stage, with few scenes."""
    content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text()) | {"output_dir": str(tmp_path)}
    content["model"] = content["model"].replace("src/vidlada_hf/checkpoints/vidlada-tiny", str(EMBEDDED_CHECKPOINT))
    arguments = {"max_steps": 1, "report_to": [], "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1}
    for stage in content["stages"]:
        stage["batch_size"] = 4
        stage["arguments"] |= arguments
        stage.pop("denoising", None)
        if "data" in stage["options"]:
            stage["options"]["data"]["group"] = 4
        elif "frames" in stage["options"]:
            stage["options"] |= {"scenes": 4, "group": 4}
    model = train(Recipe.from_dict(content))
    assert model == tmp_path / f"{len(STAGES[name])}-sft" / "model"
    heads = {name.split(".")[0] for name in load_file(model / "heads.safetensors")}
    own = {"recipe": {"empty", "position"}, "captions": {"late_labels"}}
    assert heads == {"cell_labels", "grounding", "letters", "correct_options"} | own[name]
