import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import TrainerCallback

from tests.llava_files import write_llava
from vidlada_hf.training import run
from vidlada_hf.training.memory_estimate import plan
from vidlada_hf.training.recipe import Recipe
from vidlada_hf.training.task import find_task

TINY = "moving_shapes.train.tiny_model:build_tiny"
DATA = {"source": "moving_shapes", "length": 40, "group": 2, "frames": [2], "types": ["color", "shape"], "long": 0}


def recipe(folder, **arguments) -> Recipe:
    """Two stages of a few steps: one of the recipe's own tasks, then the objective itself."""
    common = {"per_device_train_batch_size": 2, "report_to": [], "disable_tqdm": True, "save_steps": 2} | arguments
    return Recipe.from_dict(
        {
            "model": TINY,
            "output_dir": str(folder),
            "stages": [
                {
                    "name": "see",
                    "task": "cells",
                    "options": {"scenes": 8},
                    "rates": {"tower": 1e-3, "projector": 1e-3, "text": 0},
                    "arguments": common | {"max_steps": 2},
                },
                {
                    "name": "answer",
                    "options": {"data": DATA},
                    "rates": {"tower": 0, "projector": 0, "text": 1e-3, "muon": 1e-3},
                    "arguments": common | {"max_steps": 4, "logging_steps": 2},
                },
            ],
        }
    )


class Killed(Exception):
    """Stands for a kill."""


class KillAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step and state.max_steps == 4:
            raise Killed


@contextmanager
def dying(monkeypatch) -> Iterator[None]:
    """Trainers die in their third step of four, between two checkpoints."""
    usual = run.DiffusionTrainer
    with monkeypatch.context() as patch:
        patch.setattr(
            run,
            "DiffusionTrainer",
            lambda *args, callbacks=(), **kwargs: usual(*args, callbacks=[*callbacks, KillAt(3)], **kwargs),
        )
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return run.train(recipe(tmp_path_factory.mktemp("run")))


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_every_stage_leaves_a_model_that_the_next_starts_from(undisturbed):
    stages = undisturbed.parents[1]
    assert undisturbed == stages / "2-answer" / "model"
    see, answer = weights(stages / "1-see" / "model"), weights(undisturbed)
    start = run.load(TINY, 1)[0].state_dict()
    tower = [name for name in answer if "vision_tower.encoder" in name and name.endswith("fc1.weight")]
    text = [name for name in answer if "language_model.layers" in name and name.endswith("up_proj.weight")]
    assert tower and text
    for name in tower:  # trained first, then frozen
        assert not torch.equal(see[name], start[name]) and torch.equal(see[name], answer[name])
    for name in text:  # the other way round
        assert torch.equal(see[name], start[name]) and not torch.equal(see[name], answer[name])
    assert json.loads((stages / "2-answer" / "log.json").read_text())[0]["loss"] > 0


def test_an_interpolated_stage_goes_that_share_of_its_way(undisturbed, tmp_path):
    straight = recipe(tmp_path)
    see, answer = straight.stages
    shutil.copytree(undisturbed.parents[1] / "1-see", tmp_path / "1-see")
    quarter = weights(run.train(replace(straight, stages=(see, replace(answer, interpolation=0.25)))))
    start, end = weights(tmp_path / "1-see" / "model"), weights(undisturbed)
    assert any(not torch.equal(start[name], end[name]) for name in end)
    for name, tensor in quarter.items():
        torch.testing.assert_close(tensor, 0.75 * start[name] + 0.25 * end[name], rtol=1e-5, atol=1e-7)


def test_killed_and_resumed_it_ends_with_the_same_weights(undisturbed, tmp_path, monkeypatch):
    """Float32 on one CPU: bit by bit. Killed after the first stage and between two checkpoints of the second."""
    with dying(monkeypatch), pytest.raises(Killed):
        run.train(recipe(tmp_path))
    assert (tmp_path / "1-see" / "model" / "config.json").is_file()
    assert not (tmp_path / "2-answer" / "model").exists()
    torch.manual_seed(5)  # whatever the new process drew before
    resumed = weights(run.train(recipe(tmp_path)))
    for name, tensor in weights(undisturbed).items():
        assert torch.equal(tensor, resumed[name]), name


CANVASES = {"padding": True, "canvas": [4, 6, 8, 12, 16, 24]}
RANDOM_STAGES = {
    "canvases": {"options": {"data": DATA, "labels": CANVASES}},
    "lessons": {"task": "lessons", "options": {"scenes": 4, "group": 2, "text_rows": 40, "grounding": 0.5}},
}


@pytest.mark.parametrize("kind", RANDOM_STAGES)
def test_what_a_stage_draws_is_drawn_again_after_a_kill(kind, tmp_path, monkeypatch):
    """Also what the data loader had drawn ahead when the run died."""
    rates = {"tower": 0, "projector": 0, "text": 1e-3, "muon": 1e-3}
    arguments = recipe(tmp_path).stages[1].arguments
    stage = {"name": kind, "rates": rates, "arguments": arguments} | RANDOM_STAGES[kind]

    def one_stage(folder) -> Recipe:
        return Recipe.from_dict({"model": TINY, "output_dir": str(folder), "stages": [stage]})

    straight = weights(run.train(one_stage(tmp_path / "straight")))
    with dying(monkeypatch), pytest.raises(Killed):
        run.train(one_stage(tmp_path / "killed"))
    torch.manual_seed(5)
    resumed = weights(run.train(one_stage(tmp_path / "killed")))
    for name, tensor in straight.items():
        assert torch.equal(tensor, resumed[name]), name


def test_bfloat16_keeps_float32_weights_and_learns_about_the_same(undisturbed, tmp_path):
    half = run.train(recipe(tmp_path, bf16=True))
    assert {tensor.dtype for tensor in weights(half).values()} == {torch.float32}
    losses = [
        [line["loss"] for line in json.loads((folder.parent / "log.json").read_text()) if "loss" in line]
        for folder in (undisturbed, half)
    ]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.02)


def test_a_finished_run_is_not_run_again(undisturbed, monkeypatch):
    monkeypatch.setattr(run, "run_stage", lambda *args: pytest.fail("ran again"))
    assert run.train(recipe(undisturbed.parents[1])) == undisturbed


def test_other_settings_than_it_was_begun_with_are_refused(undisturbed):
    with pytest.raises(
        ValueError, match=r"begun with other settings \(arguments.save_steps: 2 before, 3 now\): delete"
    ):
        run.train(recipe(undisturbed.parents[1], save_steps=3))


def test_another_start_seed_or_type_is_another_run(undisturbed):
    for change, told in (
        ({"seed": 9}, "seed: 0 before, 9 now"),
        ({"dtype": "float32"}, "dtype: 'auto' before, 'float32' now"),
        ({"model": "elsewhere"}, f"model: '{TINY}' before, 'elsewhere' now"),
    ):
        other = recipe(undisturbed.parents[1]).as_dict() | change
        with pytest.raises(ValueError, match=rf"begun with other settings \({told}\)"):
            run.train(Recipe.from_dict(other))


def test_other_contents_of_a_data_file_than_it_was_begun_with_are_refused(tmp_path):
    """Batches would be other ones after a resume. How the same records are written down does not matter."""
    records = write_llava(tmp_path, 3)
    data = {"source": "llava", "path": str(records), "video_folder": str(tmp_path)}
    stages = [{"name": "mine", "options": {"data": data}, "rates": {"text": 1e-3}}]
    mine = Recipe.from_dict({"model": TINY, "output_dir": str(tmp_path / "run"), "stages": stages})
    run.prepare(mine, 1)
    place = tmp_path / "run" / "1-mine"
    (place / "checkpoint-2").mkdir()
    content = json.loads(records.read_text())
    records.write_text(json.dumps(content, indent=2))
    run.prepare(mine, 1)
    records.write_text(json.dumps(content[1:] + content[:1]))
    with pytest.raises(ValueError, match=r"other settings \(records: the data files hold something.* its files back"):
        run.prepare(mine, 1)
    (place / "model").mkdir()
    run.prepare(mine, 1)


def test_other_weights_in_the_folder_that_a_run_starts_from_are_refused(undisturbed, tmp_path):
    """A folder that was trained again would give a model that neither start leads to."""
    start = tmp_path / "start"
    shutil.copytree(undisturbed, start)
    mine = Recipe.from_dict(recipe(tmp_path / "run").as_dict() | {"model": str(start)})
    run.prepare(mine, 1)
    (tmp_path / "run" / "1-see" / "checkpoint-2").mkdir()
    run.prepare(mine, 1)
    shutil.copy(undisturbed.parents[1] / "1-see" / "model" / "model.safetensors", start)
    with pytest.raises(ValueError, match=r"other settings \(weights: the model's files hold something else"):
        run.prepare(mine, 1)


def test_a_damaged_start_is_named(undisturbed, tmp_path):
    start = tmp_path / "start"
    shutil.copytree(undisturbed, start)
    (start / "model.safetensors").write_bytes((start / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(ValueError, match=f"A file of weights in {start} is damaged"):
        run.load(str(start), 0)


def test_an_output_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="`output_dir` must be a folder, and .*file is a file"):
        run.prepare(recipe(tmp_path / "file"), 1)


def test_a_stage_without_a_checkpoint_may_be_changed_and_one_with_it_keeps_its_processes(tmp_path):
    one, other = recipe(tmp_path), recipe(tmp_path, save_steps=3)
    place = tmp_path / "1-see"
    run.claim(place, one.stages[0], one, 1)
    run.claim(place, other.stages[0], other, 2)  # as after a mistake that was told before the first step
    (place / "checkpoint-2").mkdir()
    with pytest.raises(ValueError, match=r"begun with other settings \(processes: 2 before, 1 now\)"):
        run.claim(place, other.stages[0], other, 1)
    (place / "model").mkdir()
    run.claim(place, other.stages[0], other, 1)  # what is done may be followed by any number


def test_a_plan_knows_the_options_too(tmp_path):
    content = recipe(tmp_path).as_dict()
    content["stages"][1]["options"] = {"dat": DATA}
    with pytest.raises(ValueError, match="Unknown key `dat` in `options` of the task Conversations: did you"):
        plan(Recipe.from_dict(content))


def test_options_of_the_examination_are_checked_too(tmp_path):
    content = recipe(tmp_path / "run").as_dict()
    content["stages"][1]["denoising"] = {"evry": 5, "unmasking": "threshold"}
    with pytest.raises(ValueError, match="Unknown key `evry` in `denoising` of stage .*: did you mean `every`"):
        run.train(Recipe.from_dict(content))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": DATA, "frame_cach": "x"}, "Unknown key `frame_cach` .* did you mean `frame_cache`"),
        ({}, "lacks the key `data`"),
        ({"data": {}}, "need `data` with a `source`"),
        ({"data": 5}, "`data` in .* is 5: Input should be"),
        ({"data": {"source": "llava", "path": 3}}, "`path` in `data` of the source 'llava' is 3: .* valid string"),
        ({"data": DATA, "bad_videos": "ignore"}, "`bad_videos` in .* is 'ignore': .* 'skip' or 'stop'"),
        ({"data": DATA, "time_sampling": "even"}, "`time_sampling` in .* is 'even': .* 'independent', 'antithetic' or"),
        ({"data": DATA, "labels": {"max_length": "all"}}, "`max_length` in `labels` is 'all': .* valid integer"),
        ({"data": DATA, "frame_cache": __file__}, "`frame_cache` must be a folder to write to, .*test_run.py is none"),
        ({"data": DATA, "processor_options": {"num_frame": 8}}, "Unknown key `num_frame` in .* mean `num_frames`"),
    ],
)
def test_bad_options_are_told_once_whoever_runs_them(tmp_path, options, message, capfd):
    content = recipe(tmp_path / "run").as_dict()
    content["stages"][1]["options"] = options
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=message):
        run.launch(file, 2)
    with pytest.raises(SystemExit, match=f"vidlada: .*{message}"):
        run.main(str(file))
    assert not (tmp_path / "run").exists()


def test_a_start_that_is_not_there_is_told_before_anything_runs(tmp_path):
    """Written as a path it is not looked for on the Hub, which takes a minute of retries without a network."""
    for begin in (run.train, plan):
        with pytest.raises(FileNotFoundError, match="./models/none is no folder"):
            begin(Recipe.from_dict(recipe(tmp_path / "run").as_dict() | {"model": "./models/none"}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("start", ["nosuch_module:build", "json:nosuch", "json:__name__"])
def test_a_start_that_no_function_builds_is_refused(tmp_path, start):
    with pytest.raises(ValueError, match=f"`model` is '{start}', which is no folder and no 'module:function'"):
        run.train(Recipe.from_dict(recipe(tmp_path / "run").as_dict() | {"model": start}))


def test_a_run_is_gone_on_with_sharded_as_it_was_begun(tmp_path, monkeypatch):
    run.prepare(recipe(tmp_path), 2)
    (tmp_path / "1-see" / "checkpoint-2").mkdir()
    run.prepare(recipe(tmp_path), 2)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match=r"begun with other settings \(sharding: '' before, 'FSDP' now\)"):
        run.prepare(recipe(tmp_path), 2)


@pytest.mark.parametrize(
    ("settings", "is_deepspeed", "message"),
    [({"denoising": {"every": 1}}, False, "has `denoising`, which sharded"), ({"lora": {"r": 2}}, True, "has `lora`")],
)
def test_what_shards_cannot_do_is_refused(settings, is_deepspeed, message):
    sharded = SimpleNamespace(is_sharded=True, is_deepspeed_enabled=is_deepspeed)
    with pytest.raises(ValueError, match=message):
        run.refuse_sharded(run.Stage("one", **settings), sharded)
    run.refuse_sharded(run.Stage("one", **settings), SimpleNamespace(is_sharded=False, is_deepspeed_enabled=False))


def test_a_new_start_forgets_what_was_left_out_by_one_that_failed(tmp_path):
    notes = tmp_path / "1-see" / "left_out.jsonl"
    notes.parent.mkdir()
    notes.write_text("{}\n")
    run.prepare(recipe(tmp_path), 1)
    assert not notes.exists()


def test_what_was_left_out_is_told_at_the_end(tmp_path, capfd):
    records = write_llava(tmp_path, 3)
    next(tmp_path.glob("*color*.mp4")).write_bytes(b"no video")
    content = recipe(tmp_path / "run").as_dict()
    content["stages"] = content["stages"][1:]
    data = {"source": "llava", "path": str(records), "video_folder": str(tmp_path)}
    content["stages"][0]["options"] = {"data": data, "processor_options": {"num_frames": 2}}
    run.train(Recipe.from_dict(content))
    notes = tmp_path / "run" / "1-answer" / "left_out.jsonl"
    assert f"Stage 'answer': 1 records were left out (bad video): see {notes}." in capfd.readouterr().out


def test_an_unknown_task_is_refused_before_anything_runs(tmp_path):
    broken = recipe(tmp_path).as_dict()
    broken["stages"][1]["task"] = "conversation"
    with pytest.raises(ValueError, match="There is no task 'conversation': known are 'conversations', 'cells'"):
        run.train(Recipe.from_dict(broken))
    assert not list(tmp_path.iterdir())


def test_missing_data_of_a_later_stage_are_told_before_anything_runs(tmp_path):
    broken = recipe(tmp_path).as_dict()
    broken["stages"][1]["options"]["data"] = {"source": "llava", "path": str(tmp_path / "none.json")}
    with pytest.raises(FileNotFoundError, match="There is no file .*none.json"):
        run.train(Recipe.from_dict(broken))
    broken["stages"][1]["options"]["data"] = {"source": "llava"}
    with pytest.raises(ValueError, match="`data` of the source 'llava' lacks the key `path`"):
        run.train(Recipe.from_dict(broken))
    assert not list(tmp_path.iterdir())
    cut = tmp_path / "cut.json"
    cut.write_text('[{"video": "a.mp4", "conver')
    broken["stages"][1]["options"]["data"] = {"source": "llava", "path": str(cut)}
    with pytest.raises(ValueError, match="cut.json is no JSON: .* Was its download cut short"):
        run.train(Recipe.from_dict(broken))
    assert list(tmp_path.iterdir()) == [cut]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": 0}, "`group` in `data` of the source 'moving_shapes' is 0: .* greater than or equal to 1"),
        ({"length": 0}, "`length` in .* is 0: .* greater than or equal to 1"),
        ({"frames": []}, r"`frames` in .* is \[\]: .* at least 1 item"),
        ({"frames": [0]}, r"`frames` in .* is \[0\]: .* greater than or equal to 1"),
        ({"types": []}, r"`types` in .* is \[\]: .* at least 1 item"),
        ({"types": ["caption"]}, "`types` are caption: name one with short answers"),
        ({"types": ["colour"]}, "There is no question type 'colour'"),
        ({"types": ["last"], "frames": [1]}, "No question of type 'last' can be answered from 1 frames"),
        ({"long": 2}, "`long` in .* is 2: .* less than or equal to 1"),
    ],
)
def test_impossible_options_of_a_later_stage_are_told_before_anything_runs(tmp_path, options, message):
    broken = recipe(tmp_path).as_dict()
    broken["stages"][1]["options"]["data"] |= options
    with pytest.raises(ValueError, match=message):
        run.train(Recipe.from_dict(broken))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"denoising": {"every": 0}}, "`every` in `denoising` of stage 'answer' is 0"),
        ({"denoising": {"block_length": 48}}, r"`block_length` \(48\) does not divide `max_new_tokens` \(64\)"),
        (
            {"arguments": {"dataloader_prefetch_factor": 4}},
            "`arguments` of stage 'answer' do .*dataloader_prefetch",
        ),
        ({"arguments": {"bf16": True, "fp16": True}}, "`arguments` of stage 'answer' do not go together: .*both"),
        ({"arguments": {"report_to": ["tensorbord"]}}, "`arguments` of stage 'answer' .* tensorbord is not supported"),
        ({"arguments": {"lr_scheduler_type": "cosine_with_min_lr"}}, "`arguments` of stage 'answer' .*min_lr"),
        ({"arguments": {"train_sampling_strategy": "group_by_length"}}, "'answer' .* needs data from files"),
        ({"options": {"data": DATA, "labels": {"padding": True, "canvas": [-4]}}}, r"`canvas` in `labels` is \[-4\]"),
        ({"options": {"data": DATA, "labels": {"max_length": 0}}}, "`max_length` in `labels` is 0"),
    ],
)
def test_impossible_numbers_are_told_before_anything_runs(tmp_path, change, message):
    broken = recipe(tmp_path).as_dict()
    broken["stages"][1] |= change
    with pytest.raises(ValueError, match=message):
        run.train(Recipe.from_dict(broken))
    assert not list(tmp_path.iterdir())


def test_data_of_a_stage_that_has_ended_are_not_asked_for(tmp_path):
    done = recipe(tmp_path).as_dict()
    done["stages"][0]["task"] = "conversations"
    done["stages"][0]["options"] = {"data": {"source": "llava", "path": str(tmp_path / "deleted.json")}}
    ended = tmp_path / "1-see"
    with pytest.raises(FileNotFoundError):
        run.prepare(Recipe.from_dict(done), 1)
    run.claim(ended, Recipe.from_dict(done).stages[0], Recipe.from_dict(done), 1)
    (ended / "model").mkdir()
    run.prepare(Recipe.from_dict(done), 1)


def test_lost_notes_of_a_stage_are_told(tmp_path):
    run.prepare(recipe(tmp_path), 1)
    (tmp_path / "1-see" / "checkpoint-2").mkdir()
    (tmp_path / "1-see" / "stage.json").write_text('{"name": ')
    with pytest.raises(ValueError, match="stage.json, which says what this stage was begun with, cannot be read"):
        run.prepare(recipe(tmp_path), 1)


def test_tasks_are_found_by_module_and_class():
    assert find_task("vidlada_hf.training.conversations:Conversations").__name__ == "Conversations"


@pytest.mark.parametrize(("cores", "processes", "workers"), [(16, 1, 14), (16, 4, 2), (64, 1, 14), (1, 1, 1)])
def test_batches_are_prepared_in_workers_where_a_gpu_waits_for_them(cores, processes, workers, monkeypatch):
    monkeypatch.setattr(run.torch.cuda, "is_available", lambda: False)
    assert run.default_arguments()["dataloader_num_workers"] == 0
    monkeypatch.setattr(run.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(run, "is_torch_tf32_available", lambda: True)
    monkeypatch.setattr(run.os, "cpu_count", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    found = run.default_arguments()
    assert found["dataloader_num_workers"] == workers and found["tf32"] is True
