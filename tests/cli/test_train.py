from pathlib import Path

import pytest

from vidlada_hf.training import launch, run


def test_train_refuses_a_recipe_with_mistakes_before_it_starts(vidlada, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: x\noutput_dir: {tmp_path}/run\nstages: [{{name: a, taks: cells}}]\n")
    code, _, message = vidlada("train", recipe)
    assert code == 1 and "Unknown key `taks`" in message and "id you mean `task`?" in message
    assert vidlada("train", tmp_path / "none.yaml")[0] == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("processes", [1, 2])
def test_train_runs_the_recipe_and_names_the_model(vidlada, tmp_path: Path, monkeypatch, processes: int) -> None:
    recipe, calls = tmp_path / "recipe.yaml", []
    recipe.write_text(f"model: x\noutput_dir: {tmp_path}/run\nstages: [{{name: a, task: conversations}}]\n")
    monkeypatch.setattr(run, "train", lambda recipe: calls.append(recipe.model) or tmp_path / "model")
    monkeypatch.setattr(launch, "launch", lambda file, count: calls.append((file, count)) or tmp_path / "model")
    code, out, message = vidlada("train", recipe, "--processes", processes)
    assert code == 0, message
    assert out.strip() == f"Trained. The model is in {tmp_path / 'model'}."
    assert calls == (["x"] if processes == 1 else [(recipe, 2)])


def test_a_device_without_memory_is_refused(vidlada, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: x\noutput_dir: {tmp_path}/run\nstages: [{{name: a, task: conversations}}]\n")
    code, _, message = vidlada("train", recipe, "--dry-run", "--device-memory", "-1")
    assert code == 1 and "`--device-memory` must be a number of GiB above 0, got -1.0" in message
