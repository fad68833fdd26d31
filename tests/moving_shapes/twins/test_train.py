import pytest
import torch
import yaml

from moving_shapes.twins.models import load_step
from moving_shapes.twins.train import TWINS, main, train, twin_recipe
from vidlada_hf.training.recipe import Recipe
from vidlada_hf.training.task import find_task


def test_the_recipes_differ_in_their_task_and_folder_alone(tmp_path):
    recipes = {name: Recipe.from_dict(twin_recipe(name, tmp_path)).as_dict() for name in TWINS}
    for name, recipe in recipes.items():
        assert recipe.pop("output_dir") == str(tmp_path / name)
        for stage in recipe["stages"]:
            assert stage.pop("task") == TWINS[name]
            find_task(TWINS[name]).check(stage["options"])
        assert recipe == recipes["full"]


def test_every_measured_step_is_kept():
    for stage in Recipe.from_dict(twin_recipe("full")).stages[1:]:
        arguments = stage.arguments
        assert arguments["max_steps"] == arguments["save_steps"] * arguments["save_total_limit"]


def small(monkeypatch, tmp_path):
    """One step of each stage, with few scenes."""
    content = twin_recipe("full")
    for stage in content["stages"]:
        stage["options"] |= {"scenes": 4, "group": 4, "text_tokens": min(40, stage["options"]["text_tokens"])}
        stage["batch_size"] = 4
        stage["arguments"] |= {
            "max_steps": 1,
            "save_steps": 1,
            "warmup_steps": 0,
            "report_to": [],
            "disable_tqdm": True,
        }
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(content))
    monkeypatch.setattr("moving_shapes.twins.train.RECIPE", file)


@pytest.mark.slow
def test_one_command_trains_all_from_the_same_weights(monkeypatch, tmp_path):
    """They begin as one model, end as three, and a second call finds them done."""
    small(monkeypatch, tmp_path)
    for _ in range(2):
        main(["--output", str(tmp_path / "runs")])
    steps = [load_step(tmp_path / "runs" / name / "2-packed_qa" / "checkpoint-1").state_dict() for name in TWINS]
    changed = [name for name in steps[0] if not all(torch.equal(steps[0][name], step[name]) for step in steps[1:])]
    of_text = ("model.language_model.", "lm_head.")
    assert changed and [name for name in changed if not name.startswith(of_text)] == []


@pytest.mark.slow
def test_several_processes_train_one(monkeypatch, tmp_path):
    small(monkeypatch, tmp_path)
    assert train("autoregressive", tmp_path / "runs", 2).is_dir()


def test_a_checkpoint_without_the_text_model_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"heads.a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="lacks .* tensors of the text model, model.language_model"):
        load_step(tmp_path)
