"""Two processes that share each batch, over gloo: the losses and weights of one process, killed and resumed or not.

So do two that cut the weights up too, by the shipped configurations for FSDP and DeepSpeed. Starting processes takes
most of the time here, so that one launch runs the stages of several tests.

Tolerances: float32 sums in another order; AdamW divides gradients by their own size, so that what is rounding in a
gradient near 0 becomes up to a whole step of the rate in a weight. So weights may differ by a hundredth of the way that
training has moved them, in the mean over all, and by a tenth in the mean over one tensor: a tensor whose gradients are
not shared would be further apart. Biases of keys are not compared alone: a softmax cancels them, so that their
gradients are nothing but rounding.
"""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests import processes
from tests.llava_files import write_llava
from tests.training.helpers import DATA, TINY
from vidlada_hf.hub.checksums import CHECKSUMS
from vidlada_hf.training import run
from vidlada_hf.training.conversation_task import ConversationTask
from vidlada_hf.training.data.video_dataset import count_skipped
from vidlada_hf.training.launch import launch
from vidlada_hf.training.model_loading import load_model
from vidlada_hf.training.recipe import Recipe

REPOSITORY = Path(__file__).parents[2]
RATES = {"tower": 1e-5, "projector": 1e-4, "text": 1e-4}
ARGUMENTS = {"max_steps": 4, "save_steps": 2, "logging_steps": 1, "report_to": [], "disable_tqdm": True}
FEW = DATA | {"length": 16}
SHORT = FEW | {"length": 6, "long": 0.5}  # of a second step's four examples two are there, and one process has none


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


def stage(name: str = "one", micro_batch: int = 0, **changed: Any) -> dict[str, Any]:
    """A stage of four examples a step.

    Args:
        micro_batch: examples of a process at a time, where all that it has in a step are more.
        changed: further keys; `arguments` are added.
    """
    sizes = {"per_device_train_batch_size": micro_batch} if micro_batch else {}
    arguments = ARGUMENTS | sizes | changed.pop("arguments", {})
    return {"name": name, "options": {"data": FEW}, "rates": RATES, "batch_size": 4, "arguments": arguments} | changed


DOOMED = [stage(task=f"{__name__}:Doomed")]
ADAPTED = [*DOOMED, stage("adapter", lora={"r": 4}, arguments={"gradient_checkpointing": True})]


def write(folder: Path, stages: list[dict], model: str = TINY) -> Path:
    """A file with a recipe."""
    folder.mkdir(exist_ok=True)
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump({"model": model, "output_dir": str(folder / "run"), "stages": stages}))
    return file


def train_alone(folder: Path, stages: list[dict]) -> Path:
    """One process with the whole batch."""
    run.train(Recipe.from_yaml(write(folder, stages)))
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in json.loads((folder / "log.json").read_text()) if "loss" in line]


def assert_equal(one: Path, other: Path, names: tuple[str, ...] = ("one",)) -> None:
    """Whether stages of two runs have the same losses and weights."""
    start = load_model(TINY, 1)[0].state_dict()
    for folder in (folder for folder in (one / "run").iterdir() if folder.name[2:] in names):
        pair = folder, other / "run" / folder.name
        logged = [torch.tensor(losses(folder)) for folder in pair]
        torch.testing.assert_close(*logged, rtol=1e-3, atol=1e-3)  # logged rounded
        first, second = map(weights, pair)
        assert first.keys() == second.keys()
        moved, apart = (
            {name: (tensor - base[name]).flatten().abs() for name, tensor in first.items()} for base in (start, second)
        )
        for name in moved:
            if not name.endswith("k_proj.bias"):
                assert 10 * apart[name].mean() <= moved[name].mean(), name
        total_moved, total_apart = (torch.cat(list(tensors.values())).mean() for tensors in (moved, apart))
        assert 100 * total_apart < total_moved, f"{total_apart:.1e} apart, moved by {total_moved:.1e}"


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("VIDLADA_TEST_DOOM", str(tmp_path_factory.mktemp("doom") / "doom"))
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY / 'src'}{os.pathsep}{REPOSITORY}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The doomed recipe, which does not die in one process, and an adapter."""
    os.environ.setdefault("VIDLADA_TEST_DOOM", "none")
    return train_alone(tmp_path_factory.mktemp("alone"), ADAPTED)


def test_accumulated_steps_are_those_of_the_whole_batch(alone, tmp_path):
    accumulated = train_alone(tmp_path, [stage(micro_batch=1, task=f"{__name__}:Doomed")])
    assert_equal(accumulated, alone)


# --- one launch ------------------------------------------------------------------------------------------------------


def sharing_stages(folder: Path, is_alone: bool) -> list[dict]:
    """Stages whose losses one process and two have to share. Answers of one word and of many: a process or a step with
    fewer tokens weighs less."""
    one = 0 if is_alone else 1  # example at a time: two processes accumulate two
    files = {"source": "llava", "path": str(folder / "records.json"), "video_folder": str(folder)}
    return [
        stage("shared"),
        stage("accumulated", micro_batch=one),
        stage("short-examples", options={"data": SHORT}),
        stage("short-tokens", micro_batch=one, options={"data": SHORT, "average": "tokens"}),
        stage("tokens", micro_batch=one, options={"data": FEW | {"long": 0.5}, "average": "tokens"}),
        stage(
            "files",
            options={"data": files, "processor_options": {"num_frames": 2}},
            arguments={"dataloader_num_workers": 1, "train_sampling_strategy": "group_by_length"},
        ),
    ]


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> tuple[Path, Path]:
    """The run of one process, and that of two."""
    folder = tmp_path_factory.mktemp("shared")
    write_llava(folder, 8)
    next(folder.glob("*color*.mp4")).write_bytes(b"no video")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{REPOSITORY / 'src'}{os.pathsep}{REPOSITORY}")
        patch.setenv("OMP_NUM_THREADS", "1")
        one = train_alone(folder / "one", sharing_stages(folder, is_alone=True))
        two = folder / "two"
        model = launch(write(two, sharing_stages(folder, is_alone=False)), 2)
    assert model == two / "run" / "6-files" / "model"
    return one, two


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shared", "accumulated", "short-examples", "short-tokens", "tokens", "files"])
def test_two_processes_train_as_one(shared, name):
    """They share the examples of a step, may accumulate too, and read files by workers, in groups of similar lengths.

    An epoch's last batch may be short; answer tokens are counted over all processes and accumulated steps.
    """
    assert_equal(*shared, (name,))


@pytest.mark.slow
def test_two_processes_skip_the_records_that_one_does(shared):
    skipped = [count_skipped(folder / "run" / "6-files" / "skipped.jsonl") for folder in shared]
    assert skipped == [{"bad video": 1}] * 2


def test_a_mean_over_tokens_is_another_objective(tmp_path):
    data = FEW | {"long": 0.5}
    stages = [stage(average, options={"data": data, "average": average}) for average in ("tokens", "examples")]
    for one in stages:
        one["arguments"] = ARGUMENTS | {"max_steps": 1}
        train_alone(tmp_path / one["name"], [one])
    first = [losses(tmp_path / one["name"] / "run" / f"1-{one['name']}")[0] for one in stages]
    assert abs(first[0] - first[1]) > 1e-2


# --- kills -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_train_as_one_also_killed_and_resumed(alone, tmp_path):
    """Killed for good in the third step, resumed from the checkpoint of the second."""
    file = write(tmp_path, DOOMED)
    doom = Path(os.environ["VIDLADA_TEST_DOOM"])
    doom.touch()
    with pytest.raises(ValueError, match="The run in 2 processes was stopped: exit code 9"):
        launch(file, 2)
    assert not doom.exists() and not (tmp_path / "run" / "1-one" / "model").exists()
    assert (tmp_path / "run" / "1-one" / "checkpoint-2").is_dir()
    launch(file, 2)
    assert_equal(tmp_path, alone)


@pytest.mark.slow
def test_what_stopped_one_of_two_processes_is_reported(tmp_path):
    records = write_llava(tmp_path, 4)
    next(tmp_path.glob("*color*.mp4")).write_bytes(b"no video")
    data = {"source": "llava", "path": str(records), "video_folder": str(tmp_path)}
    options = {"data": data, "processor_options": {"num_frames": 2}, "bad_videos": "stop"}
    with pytest.raises(ValueError, match=r"The run in 2 processes was stopped: .*color.*\.mp4"):
        launch(write(tmp_path, [stage(options=options)]), 2)


ORPHAN = """
import os, subprocess, sys, time
if sys.argv[1] == "child":
    from vidlada_hf.processes import exit_with_parent
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
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=lambda number: number.name)
def test_a_killed_command_leaves_no_process_behind(tmp_path, number):
    """Killed when the first checkpoint is there: the workers are in the middle of it."""
    file = write(tmp_path, [stage(arguments={"max_steps": 10_000, "save_total_limit": 1})])
    command = processes.start([Path(sys.executable).with_name("vidlada"), "train", file, "--processes", "2"])
    try:
        wait_for(lambda: any((tmp_path / "run" / "1-one").glob("checkpoint-*")))
        assert len(processes_of(file)) == 3
        command.send_signal(number)
        wait_for(lambda: not processes_of(file))
        assert command.wait(20) != 0
    finally:
        processes.end(command)


def processes_of(file: Path) -> list[psutil.Process]:
    """Processes whose command names a file."""
    listed = psutil.process_iter(["cmdline", "status"])
    alive = [process for process in listed if process.info["status"] != psutil.STATUS_ZOMBIE]
    return [process for process in alive if str(file) in (process.info["cmdline"] or ())]


def wait_for(condition: Callable[[], bool], seconds: float = 300) -> None:
    """Until a condition is met; an error after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


# --- weights in shards -----------------------------------------------------------------------------------------------


def launch_sharded(config: str, *command: str) -> int:
    """Two processes by accelerate, in float32; the exit code."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", f"recipes/accelerate/{config}"]
    launcher += ["--num_processes", "2", "--mixed_precision", "no", *command]
    done = processes.run(launcher, cwd=REPOSITORY)
    print(done.stdout, done.stderr)
    return done.returncode


@pytest.mark.slow
def test_fsdp_trains_as_one_also_killed_and_resumed(alone, tmp_path, monkeypatch):
    """The second stage trains an adapter, with gradient checkpointing, as large models need it."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    command = ["-m", "tests.training.fsdp_on_cpu", str(write(tmp_path, ADAPTED))]
    Path(os.environ["VIDLADA_TEST_DOOM"]).touch()
    assert launch_sharded("fsdp.yaml", *command) != 0
    folder = tmp_path / "run" / "1-one"
    assert not (folder / "model").exists()
    kept = list((folder / "checkpoint-2").iterdir())
    assert {file.suffix for file in kept if file.name != CHECKSUMS} == {".json", ".safetensors"}  # no pickle
    assert launch_sharded("fsdp.yaml", *command) == 0
    assert_equal(alone, tmp_path, ("one", "adapter"))


@pytest.mark.slow
def test_deepspeed_trains_as_one_also_resumed(alone, tmp_path, monkeypatch):
    """From a saved model: ZeRO-3 cuts weights up while they are made, and they are loaded into the shards."""
    pytest.importorskip("deepspeed")
    if shutil.which("c++") is None:
        pytest.skip("DeepSpeed compiles its communication at the first use, and there is no C++ compiler.")
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    for part in load_model(TINY, seed=1):
        part.save_pretrained(tmp_path / "start")
    stages = [stage(task=f"{__name__}:Doomed", arguments={"use_cpu": False})]
    command = ["-m", "vidlada_hf.training.run", str(write(tmp_path, stages, str(tmp_path / "start")))]
    Path(os.environ["VIDLADA_TEST_DOOM"]).touch()
    assert launch_sharded("deepspeed_zero3.yaml", *command) != 0
    assert (tmp_path / "run" / "1-one" / "checkpoint-2").is_dir()
    assert launch_sharded("deepspeed_zero3.yaml", *command) == 0
    assert_equal(tmp_path, alone)
