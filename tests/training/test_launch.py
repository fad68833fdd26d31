"""Two processes that share each batch, over gloo: the losses and weights of one process, killed and resumed or not.

So do two that cut the weights up too, by the shipped configurations for FSDP and DeepSpeed.

Tolerances: float32 sums in another order; AdamW divides gradients by their own size, so that what is rounding in a
gradient near 0 becomes up to a whole step of the rate in a weight. Rates are small, and weights agree within 1e-5.
"""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests import processes
from tests.llava_files import write_llava
from tests.training.helpers import DATA, TINY
from vidlada_hf.training import run
from vidlada_hf.training.conversation_task import ConversationTask
from vidlada_hf.training.data.video_dataset import count_skipped
from vidlada_hf.training.launch import launch
from vidlada_hf.training.model_loading import load_model
from vidlada_hf.training.recipe import Recipe

REPOSITORY = Path(__file__).parents[2]
STEPS = 4
FEW = DATA | {"length": 16}


class Doomed(ConversationTask):
    """Dies once in its third step, at the first sight of a file that says so; the file is gone then."""

    steps = 0

    def forward(self, **batch):
        self.steps += 1
        doom = Path(os.environ["VIDLADA_TEST_DOOM"])
        if self.steps == 3 and doom.exists() and os.environ.get("RANK") == "1":
            doom.unlink()
            os._exit(9)
        return super().forward(**batch)


def recipe(folder: Path, batch_size: int, accumulate: int = 1, model: str = TINY, **changed) -> Path:
    """A file with a recipe of four examples a step. `changed`: further keys of its stage."""
    stage = {
        "name": "one",
        "task": f"{__name__}:Doomed",
        "options": {"data": FEW},
        "rates": {"tower": 1e-5, "projector": 1e-4, "text": 1e-4},
        "arguments": {
            "per_device_train_batch_size": batch_size,
            "gradient_accumulation_steps": accumulate,
            "max_steps": STEPS,
            "save_steps": 2,
            "logging_steps": 1,
            "report_to": [],
            "disable_tqdm": True,
        },
    }
    stage["arguments"] |= changed.pop("arguments", {})
    folder.mkdir(exist_ok=True)
    file = folder / "recipe.yaml"
    content = {"model": model, "output_dir": str(folder / "run"), "stages": [stage | changed]}
    file.write_text(yaml.safe_dump(content))
    return file


def results(folder: Path) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses of the steps, and the weights."""
    stage = folder / "run" / "1-one"
    log = json.loads((stage / "log.json").read_text())
    return [line["loss"] for line in log if "loss" in line], load_file(stage / "model" / "model.safetensors")


def assert_equal(one, other) -> None:
    torch.testing.assert_close(torch.tensor(one[0]), torch.tensor(other[0]), rtol=1e-3, atol=1e-3)  # logged rounded
    for name, tensor in one[1].items():
        torch.testing.assert_close(tensor, other[1][name], rtol=0, atol=1e-5, msg=name)


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("VIDLADA_TEST_DOOM", str(tmp_path_factory.mktemp("doom") / "doom"))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process with the whole batch."""
    folder = tmp_path_factory.mktemp("alone")
    os.environ.setdefault("VIDLADA_TEST_DOOM", str(folder / "none"))
    run.train(Recipe.from_yaml(recipe(folder, batch_size=4)))
    return results(folder)


def test_accumulated_steps_are_those_of_the_whole_batch(alone, tmp_path):
    run.train(Recipe.from_yaml(recipe(tmp_path, batch_size=1, accumulate=4)))
    assert_equal(alone, results(tmp_path))


@pytest.mark.slow
def test_two_processes_may_accumulate_too(alone, tmp_path):
    launch(recipe(tmp_path, batch_size=1, accumulate=2), 2)
    assert_equal(alone, results(tmp_path))


@pytest.mark.slow
def test_two_processes_share_the_examples_of_a_step(alone, tmp_path):
    """Without a word of how many each has."""
    file = recipe(tmp_path, batch_size=4)
    content = yaml.safe_load(file.read_text())
    [stage] = content["stages"]
    for name in ("per_device_train_batch_size", "gradient_accumulation_steps"):
        del stage["arguments"][name]
    file.write_text(yaml.safe_dump(content | {"stages": [stage | {"batch_size": 4}]}))
    launch(file, 2)
    assert_equal(alone, results(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("average", ["examples", "tokens"])
def test_an_epochs_last_batch_may_be_short(average, tmp_path):
    """Of six examples two are left for the second step, and one process has none of them but repeats others."""
    changed = {"options": {"data": FEW | {"length": 6, "long": 0.5}, "average": average}}
    run.train(Recipe.from_yaml(recipe(tmp_path / "one", batch_size=4, **changed)))
    launch(recipe(tmp_path / "two", batch_size=2, **changed), 2)
    launch(recipe(tmp_path / "steps", batch_size=1, accumulate=2, **changed), 2)
    expected = results(tmp_path / "one")
    assert_equal(expected, results(tmp_path / "two"))
    assert_equal(expected, results(tmp_path / "steps"))


@pytest.mark.slow
def test_answer_tokens_are_counted_over_all_processes_and_accumulated_steps(tmp_path):
    """Answers of one word and of many: a process or a step with fewer tokens weighs less."""
    data = FEW | {"long": 0.5}
    changed = {"options": {"data": data, "average": "tokens"}}
    run.train(Recipe.from_yaml(recipe(tmp_path / "one", batch_size=4, **changed)))
    run.train(Recipe.from_yaml(recipe(tmp_path / "steps", batch_size=1, accumulate=4, **changed)))
    launch(recipe(tmp_path / "both", batch_size=1, accumulate=2, **changed), 2)
    expected = results(tmp_path / "one")
    assert_equal(expected, results(tmp_path / "steps"))
    assert_equal(expected, results(tmp_path / "both"))
    run.train(Recipe.from_yaml(recipe(tmp_path / "examples", batch_size=4, options={"data": data})))
    assert abs(results(tmp_path / "examples")[0][0] - expected[0][0]) > 1e-2  # another objective


@pytest.mark.slow
def test_two_processes_train_as_one_also_killed_and_resumed(alone, tmp_path):
    """Killed for good in the third step, resumed from the checkpoint of the second."""
    file = recipe(tmp_path, batch_size=2)
    doom = Path(os.environ["VIDLADA_TEST_DOOM"])
    doom.touch()
    with pytest.raises(ValueError, match="The run in 2 processes was stopped: exit code"):
        launch(file, 2)
    assert not doom.exists() and not (tmp_path / "run" / "1-one" / "model").exists()
    assert (tmp_path / "run" / "1-one" / "checkpoint-2").is_dir()
    launch(file, 2)
    assert_equal(alone, results(tmp_path))


@pytest.mark.slow
def test_what_stopped_one_of_two_processes_is_reported(tmp_path):
    records = write_llava(tmp_path, 4)
    next(tmp_path.glob("*color*.mp4")).write_bytes(b"no video")
    data = {"source": "llava", "path": str(records), "video_folder": str(tmp_path)}
    changed = {"options": {"data": data, "processor_options": {"num_frames": 2}, "bad_videos": "stop"}}
    with pytest.raises(ValueError, match=r"The run in 2 processes was stopped: .*color.*\.mp4"):
        launch(recipe(tmp_path, batch_size=2, **changed), 2)


@pytest.mark.slow
def test_two_processes_read_grouped_files_as_one_does(tmp_path):
    """By workers, from files, in groups of similar lengths, one of the files broken."""
    records = write_llava(tmp_path, 8)
    next(tmp_path.glob("*color*.mp4")).write_bytes(b"no video")
    data = {"source": "llava", "path": str(records), "video_folder": str(tmp_path)}
    changed = {
        "options": {"data": data, "processor_options": {"num_frames": 2}},
        "arguments": {"dataloader_num_workers": 1, "train_sampling_strategy": "group_by_length"},
    }
    run.train(Recipe.from_yaml(recipe(tmp_path / "one", batch_size=4, **changed)))
    launch(recipe(tmp_path / "two", batch_size=2, **changed), 2)
    assert_equal(results(tmp_path / "one"), results(tmp_path / "two"))
    skipped = [count_skipped(tmp_path / name / "run" / "1-one" / "skipped.jsonl") for name in ("one", "two")]
    assert skipped == [{"bad video": 1}] * 2


def launch_sharded(config: str, *command: str) -> int:
    """Two processes by accelerate, in float32; the exit code."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", f"recipes/accelerate/{config}"]
    launcher += ["--num_processes", "2", "--mixed_precision", "no", *command]
    return processes.run(launcher, cwd=REPOSITORY).returncode


@pytest.mark.slow
def test_fsdp_trains_as_one_also_killed_and_resumed(alone, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    command = ["-m", "tests.training.fsdp_on_cpu", str(recipe(tmp_path, batch_size=2))]
    Path(os.environ["VIDLADA_TEST_DOOM"]).touch()
    assert launch_sharded("fsdp.yaml", *command) != 0
    stage = tmp_path / "run" / "1-one"
    assert not (stage / "model").exists()
    kept = list((stage / "checkpoint-2").iterdir())
    assert {file.suffix for file in kept} == {".json", ".safetensors"}  # no pickle
    assert launch_sharded("fsdp.yaml", *command) == 0
    assert_equal(alone, results(tmp_path))


@pytest.mark.slow
def test_fsdp_trains_an_adapter(tmp_path, monkeypatch):
    """With gradient checkpointing, as large models need it: the losses of one process."""
    changed = {"lora": {"r": 4}, "arguments": {"gradient_checkpointing": True}}
    run.train(Recipe.from_yaml(recipe(tmp_path / "one", batch_size=4, **changed)))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    command = ["-m", "tests.training.fsdp_on_cpu", str(recipe(tmp_path / "two", batch_size=2, **changed))]
    assert launch_sharded("fsdp.yaml", *command) == 0
    assert_equal(results(tmp_path / "one"), results(tmp_path / "two"))


@pytest.mark.slow
def test_deepspeed_trains_as_one_also_resumed(alone, tmp_path, monkeypatch):
    """From a saved model: ZeRO-3 cuts weights up while they are made, and they are loaded into the shards."""
    pytest.importorskip("deepspeed")
    if shutil.which("c++") is None:
        pytest.skip("DeepSpeed compiles its communication at the first use, and there is no C++ compiler.")
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    model, processor = load_model(TINY, seed=1)
    for part in (model, processor):
        part.save_pretrained(tmp_path / "start")
    file = recipe(tmp_path, batch_size=2, model=str(tmp_path / "start"), arguments={"use_cpu": False})
    command = ["-m", "vidlada_hf.training.run", str(file)]
    Path(os.environ["VIDLADA_TEST_DOOM"]).touch()
    assert launch_sharded("deepspeed_zero3.yaml", *command) != 0
    assert (tmp_path / "run" / "1-one" / "checkpoint-2").is_dir()
    assert launch_sharded("deepspeed_zero3.yaml", *command) == 0
    assert_equal(alone, results(tmp_path))


ORPHAN = """
import os, subprocess, sys, time
if sys.argv[1] == "child":
    from vidlada_hf.training.launch import exit_with_parent
    exit_with_parent()
    print("ready", os.getpid(), flush=True)
else:
    subprocess.Popen([sys.executable, __file__, "child"], start_new_session=True)
time.sleep(300)
"""


def test_a_process_ends_with_a_killed_parent(tmp_path):
    (tmp_path / "orphan.py").write_text(ORPHAN)
    parent = processes.start([sys.executable, tmp_path / "orphan.py", "parent"], stdout=processes.PIPE, text=True)
    try:
        child = psutil.Process(int(parent.stdout.readline().split()[1]))
        parent.kill()
        child.wait(20)
    finally:
        processes.end(parent)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_killed_command_leaves_no_process_behind(tmp_path, number):
    """Killed when the first checkpoint is there, so that the workers are at work."""
    file = recipe(tmp_path, batch_size=2, arguments={"max_steps": 10_000, "save_total_limit": 1})
    command = processes.start([Path(sys.executable).with_name("vidlada"), "train", file, "--processes", "2"])
    try:
        wait_for(lambda: any((tmp_path / "run" / "1-one").glob("checkpoint-*")))
        assert len(workers_of(file)) == 3
        command.send_signal(number)
        wait_for(lambda: not workers_of(file))
        assert command.wait(20) != 0
    finally:
        processes.end(command)


def workers_of(file: Path) -> list[psutil.Process]:
    """Processes whose command names a file."""
    named = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if str(file) in (process.info["cmdline"] or ()) and process.info["status"] != psutil.STATUS_ZOMBIE:
            named.append(process)
    return named


def wait_for(condition, seconds: float = 120) -> None:
    """Until a condition is met; an error after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)
