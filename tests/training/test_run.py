import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.llava_files import write_llava
from tests.training.helpers import DATA, TINY, Killed, dying, recipe, weights
from vidlada_hf.hub.checksums import find_damage, find_extra
from vidlada_hf.training import run
from vidlada_hf.training.model_loading import load_model
from vidlada_hf.training.recipe import Recipe, Stage


def test_every_stage_leaves_a_model_that_the_next_starts_from(finished):
    stages = finished.parents[1]
    assert finished == stages / "2-answers" / "model"
    vision, answers = weights(stages / "1-vision" / "model"), weights(finished)
    start = load_model(TINY, 1)[0].state_dict()
    tower = [name for name in answers if "vision_tower.encoder" in name and name.endswith("fc1.weight")]
    text = [name for name in answers if "language_model.layers" in name and name.endswith("up_proj.weight")]
    assert tower and text
    for name in tower:  # trained first, then frozen
        assert not torch.equal(vision[name], start[name]) and torch.equal(vision[name], answers[name])
    for name in text:  # the other way round
        assert torch.equal(vision[name], start[name]) and not torch.equal(vision[name], answers[name])
    assert json.loads((stages / "2-answers" / "log.json").read_text())[0]["loss"] > 0


def test_heads_are_passed_on_and_are_no_part_of_the_model(finished):
    """Also by a stage that has none."""
    stages = finished.parents[1]
    first, last = (load_file(stages / name / "model" / run.HEADS) for name in ("1-vision", "2-answers"))
    assert first.keys() == {"light.weight", "light.bias"} and all(torch.equal(first[n], last[n]) for n in first)
    assert not [name for name in weights(finished) if "light" in name]


def test_an_interpolated_stage_goes_that_share_of_its_way(finished, tmp_path):
    straight = recipe(tmp_path)
    vision, answers = straight.stages
    shutil.copytree(finished.parents[1] / "1-vision", tmp_path / "1-vision")
    quarter = weights(run.train(replace(straight, stages=(vision, replace(answers, interpolation=0.25)))))
    start, end = weights(tmp_path / "1-vision" / "model"), weights(finished)
    assert any(not torch.equal(start[name], end[name]) for name in end)
    for name, tensor in quarter.items():
        torch.testing.assert_close(tensor, 0.75 * start[name] + 0.25 * end[name], rtol=1e-5, atol=1e-7)


def test_killed_and_resumed_it_ends_with_the_same_weights(finished, tmp_path, monkeypatch):
    """Float32 on one CPU: bit by bit. Killed after the first stage and between two checkpoints of the second."""
    with dying(monkeypatch), pytest.raises(Killed):
        run.train(recipe(tmp_path))
    assert (tmp_path / "1-vision" / "model" / "config.json").is_file()
    assert not (tmp_path / "2-answers" / "model").exists()
    torch.manual_seed(5)  # whatever the new process drew before
    resumed = weights(run.train(recipe(tmp_path)))
    for name, tensor in weights(finished).items():
        assert torch.equal(tensor, resumed[name]), name


def test_a_damaged_model_of_the_stage_before_is_refused(finished, tmp_path, monkeypatch):
    shutil.copytree(finished.parents[1] / "1-vision", tmp_path / "1-vision")
    (tmp_path / "2-answers").mkdir()
    (tmp_path / "2-answers" / "unfinished-model").mkdir()  # a run that was killed left it
    (tmp_path / "2-answers" / "unfinished-model" / "stale.safetensors").touch()
    weights = tmp_path / "1-vision" / "model" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match="1-vision/model, is not whole .model.safetensors: is damaged"):
        run.train(recipe(tmp_path))
    weights.write_bytes(whole)
    model = run.train(recipe(tmp_path))
    assert find_damage(model) == find_extra(model) == [] and not (model / "stale.safetensors").exists()


def test_what_a_stage_draws_is_drawn_again_after_a_kill(tmp_path, monkeypatch):
    """Also what the data loader had drawn ahead when the run died."""
    stage = recipe(tmp_path).as_dict()["stages"][1]
    stage["options"] = {"data": DATA | {"long": 0.5}, "labels": {"padding": True, "canvas": [40, 48, 56, 64]}}

    def one_stage(folder) -> Recipe:
        return Recipe.from_dict({"model": TINY, "output_dir": str(folder), "stages": [stage]})

    straight = weights(run.train(one_stage(tmp_path / "straight")))
    with dying(monkeypatch), pytest.raises(Killed):
        run.train(one_stage(tmp_path / "killed"))
    torch.manual_seed(5)
    resumed = weights(run.train(one_stage(tmp_path / "killed")))
    for name, tensor in straight.items():
        assert torch.equal(tensor, resumed[name]), name


def test_bfloat16_keeps_float32_weights_and_learns_about_the_same(finished, tmp_path):
    half = run.train(recipe(tmp_path, bf16=True))
    assert {tensor.dtype for tensor in weights(half).values()} == {torch.float32}
    losses = [
        [line["loss"] for line in json.loads((folder.parent / "log.json").read_text()) if "loss" in line]
        for folder in (finished, half)
    ]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.02)


def test_a_finished_run_is_not_run_again(finished, monkeypatch):
    monkeypatch.setattr(run, "train_stage", lambda *args: pytest.fail("ran again"))
    assert run.train(recipe(finished.parents[1])) == finished


def test_answers_are_tested_during_a_stage(tmp_path):
    content = recipe(tmp_path).as_dict()
    [_, content["stages"][0]] = content["stages"]
    del content["stages"][1]
    content["stages"][0]["denoising"] = {"every": 3, "count": 2, "max_new_tokens": 4}
    run.train(Recipe.from_dict(content))
    log = json.loads((tmp_path / "1-answers" / "log.json").read_text())
    assert [line["step"] for line in log if "denoised" in line] == [3, 4]


@pytest.mark.parametrize(
    ("settings", "is_deepspeed", "message"),
    [({"denoising": {"every": 1}}, False, "has `denoising`, which sharded"), ({"lora": {"r": 2}}, True, "has `lora`")],
)
def test_what_shards_cannot_do_is_refused(settings, is_deepspeed, message):
    sharded = SimpleNamespace(is_sharded=True, is_deepspeed_enabled=is_deepspeed)
    with pytest.raises(ValueError, match=message):
        run.refuse_sharded(Stage("one", **settings), sharded)
    run.refuse_sharded(Stage("one", **settings), SimpleNamespace(is_sharded=False, is_deepspeed_enabled=False))


def test_how_many_records_were_skipped_is_reported_at_the_end(tmp_path, capfd):
    records = write_llava(tmp_path, 3)
    next(tmp_path.glob("*color*.mp4")).write_bytes(b"no video")
    content = recipe(tmp_path / "run").as_dict()
    content["stages"] = content["stages"][1:]
    data = {"source": "llava", "path": str(records), "video_folder": str(tmp_path)}
    content["stages"][0]["options"] = {"data": data, "processor_options": {"num_frames": 2}}
    run.train(Recipe.from_dict(content))
    skipped = tmp_path / "run" / "1-answers" / "skipped.jsonl"
    assert f"Stage 'answers': 1 records were skipped (bad video): see {skipped}." in capfd.readouterr().out


def test_the_command_ends_with_one_line_for_a_mistake(tmp_path):
    """Other mistakes are in `test_preparation`."""
    content = recipe(tmp_path / "run").as_dict()
    content["stages"][1]["options"] = {}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(SystemExit, match="vidlada: .* lacks the key `data`"):
        run.main(str(tmp_path / "recipe.yaml"))
