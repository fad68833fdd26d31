import json
import shutil

import pytest

from tests.llava_files import write_llava
from tests.training.helpers import TINY, recipe
from vidlada_hf.training import run
from vidlada_hf.training.preparation import prepare
from vidlada_hf.training.recipe import Recipe
from vidlada_hf.training.run_state import claim, final_model, stage_runs


def test_stages_have_folders_seeds_and_starts_of_their_own(tmp_path):
    first, second = stage_runs(recipe(tmp_path))
    assert (first.start, first.folder, first.seed) == (TINY, tmp_path / "1-vision", 1)
    assert (second.start, second.folder, second.seed) == (str(first.model_folder), tmp_path / "2-answers", 2)
    assert final_model(recipe(tmp_path)) == tmp_path / "2-answers" / "model"


def test_other_settings_than_it_was_begun_with_are_refused(finished):
    with pytest.raises(
        ValueError, match=r"begun with other settings \(arguments.save_steps: 2 before, 3 now\): delete"
    ):
        run.train(recipe(finished.parents[1], save_steps=3))


def test_another_start_seed_or_type_is_another_run(finished):
    for change, difference in (
        ({"seed": 9}, "seed: 0 before, 9 now"),
        ({"dtype": "float32"}, "dtype: 'auto' before, 'float32' now"),
        ({"model": "some/where"}, f"model: '{TINY}' before, 'some/where' now"),
    ):
        other = recipe(finished.parents[1]).as_dict() | change
        with pytest.raises(ValueError, match=rf"begun with other settings \({difference}\)"):
            run.train(Recipe.from_dict(other))


def test_other_contents_of_a_data_file_than_it_was_begun_with_are_refused(tmp_path):
    """Batches would be other ones after a resume. How the same records are written down does not matter."""
    records = write_llava(tmp_path, 3)
    data = {"source": "llava", "path": str(records), "video_folder": str(tmp_path)}
    stages = [{"name": "only", "options": {"data": data}, "rates": {"text": 1e-3}}]
    only = Recipe.from_dict({"model": TINY, "output_dir": str(tmp_path / "run"), "stages": stages})
    prepare(only, 1)
    folder = tmp_path / "run" / "1-only"
    (folder / "checkpoint-2").mkdir()
    content = json.loads(records.read_text())
    records.write_text(json.dumps(content, indent=2))
    prepare(only, 1)
    records.write_text(json.dumps(content[1:] + content[:1]))
    with pytest.raises(ValueError, match=r"other settings \(records: the data files hold something.* its files back"):
        prepare(only, 1)
    (folder / "model").mkdir()
    prepare(only, 1)


def test_other_weights_in_the_folder_that_a_run_starts_from_are_refused(finished, tmp_path):
    """A folder that was trained again would give a model that neither start leads to."""
    start = tmp_path / "start"
    shutil.copytree(finished, start)
    other = Recipe.from_dict(recipe(tmp_path / "run").as_dict() | {"model": str(start)})
    claim(other, 1)
    (tmp_path / "run" / "1-vision" / "checkpoint-2").mkdir()
    claim(other, 1)
    shutil.copy(finished.parents[1] / "1-vision" / "model" / "model.safetensors", start)
    with pytest.raises(ValueError, match=r"other settings \(weights: the model's files hold something else"):
        claim(other, 1)


def test_a_stage_without_a_checkpoint_may_be_changed_and_one_with_it_keeps_its_processes(tmp_path):
    claim(recipe(tmp_path), 1)
    claim(recipe(tmp_path, save_steps=3), 2)  # as after a mistake that was reported before the first step
    (tmp_path / "1-vision" / "checkpoint-2").mkdir()
    with pytest.raises(ValueError, match=r"begun with other settings \(processes: 2 before, 1 now\)"):
        claim(recipe(tmp_path, save_steps=3), 1)
    (tmp_path / "1-vision" / "model").mkdir()
    claim(recipe(tmp_path, save_steps=3), 1)  # what is done may be followed by any number


def test_a_run_is_resumed_sharded_as_it_was_begun(tmp_path, monkeypatch):
    claim(recipe(tmp_path), 2)
    (tmp_path / "1-vision" / "checkpoint-2").mkdir()
    claim(recipe(tmp_path), 2)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match=r"begun with other settings \(sharding: '' before, 'FSDP' now\)"):
        claim(recipe(tmp_path), 2)


def test_a_new_start_forgets_what_was_skipped_by_one_that_failed(tmp_path):
    skipped = tmp_path / "1-vision" / "skipped.jsonl"
    skipped.parent.mkdir()
    skipped.write_text("{}\n")
    claim(recipe(tmp_path), 1)
    assert not skipped.exists()


def test_lost_settings_of_a_stage_are_reported(tmp_path):
    claim(recipe(tmp_path), 1)
    (tmp_path / "1-vision" / "checkpoint-2").mkdir()
    (tmp_path / "1-vision" / "stage.json").write_text('{"name": ')
    with pytest.raises(ValueError, match="stage.json, which says what this stage was begun with, cannot be read"):
        claim(recipe(tmp_path), 1)
