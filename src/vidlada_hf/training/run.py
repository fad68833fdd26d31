"""A recipe from start to end: `vidlada train`.

Each stage has a folder: its settings (`stage.json`), its checkpoints, and when it is done `model/`, which the next
stage starts from. The heads of its task lie there too: a later stage takes them over if it has the same. A run that was
killed goes on where it was when the same command is given again.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainingArguments, get_scheduler, set_seed
from transformers.integrations import get_reporting_integration_callbacks
from transformers.utils import is_torch_tf32_available

from ..hub.locate import find_checkpoint
from ..modeling.modeling_vidlada import VidLaDAForConditionalGeneration
from ..processing.processing_vidlada import VidLaDAProcessor
from .callbacks import DenoisingEvalCallback
from .data.video_dataset import NOTES
from .lora import LoraOptions, add_adapter, load_adapter, save_adapter
from .optimizer import OptimizerOptions
from .recipe import Recipe, Stage, find_named
from .task import TASKS, Task, find_task
from .trainer import DiffusionTrainer, last_checkpoint

HEADS = "heads.safetensors"
MOST_WORKERS = 14  # that prepare batches for a GPU, if a recipe does not say how many
PREPARED = "VIDLADA_PREPARED"  # in the environment of processes whose parent has prepared the run: a file for errors
BLOCKS, BLOCK = 64, 1 << 14  # how many blocks, of how many bytes, tell a file of weights from others


def train(recipe: Recipe) -> Path:
    """Runs the stages that are not done yet.

    Returns:
        The folder of the trained model.

    Raises:
        ValueError: a stage was begun with other settings, or its options are impossible.
    """
    start = recipe.model
    if os.environ.get("RANK", "0") == "0" and PREPARED not in os.environ:  # an error once, not by each process
        prepare(recipe, int(os.environ.get("WORLD_SIZE", 1)))
    for number, stage in enumerate(recipe.stages, 1):
        place = stage_folder(recipe, number)
        if not is_done(place):
            run_stage(stage, start, place, seed_of(recipe, number), recipe.dtype)
        start = str(place / "model")
    return Path(start)


def prepare(recipe: Recipe, processes: int) -> None:
    """Claims the stages' folders. Raises a ValueError or OSError for what cannot work, before anything is loaded: also
    for mistakes in the texts of a stage that has still to run."""
    find_builder(recipe.model)
    if Path(recipe.output_dir).exists() and not Path(recipe.output_dir).is_dir():
        raise ValueError(f"`output_dir` must be a folder, and {recipe.output_dir} is a file: name another.")
    contents = {}
    for number, stage in enumerate(recipe.stages, 1):
        DenoisingEvalCallback.check(stage.denoising, f"`denoising` of stage {stage.name!r}")
        place = stage_folder(recipe, number)
        if not is_done(place):
            shared = stage.shared_arguments(processes)
            if processes == 1 or "RANK" not in os.environ:  # they would wait for processes that are not here yet
                check_together(stage.name, place, shared)
            contents[number] = find_task(stage.task).check(stage.options, seed_of(recipe, number))
            is_grouped = stage.arguments.get("train_sampling_strategy") == "group_by_length"
            if is_grouped and stage.task in TASKS and not contents[number]:  # of others the trainer sees their dataset
                raise ValueError(
                    f"Stage {stage.name!r} has `train_sampling_strategy: group_by_length`, which needs data from files "
                    "('llava', 'messages'): leave it out."
                )
    weights = weights_of(recipe.model)
    for number, stage in enumerate(recipe.stages, 1):
        claim(stage_folder(recipe, number), stage, recipe, processes, contents.get(number, ""), weights)


def check_together(name: str, place: Path, given: dict[str, Any]) -> None:
    """Raises a ValueError for arguments of transformers' that it takes one by one, and not together."""
    try:
        arguments = TrainingArguments(str(place), **(default_arguments() | given))
        get_reporting_integration_callbacks(arguments.report_to)
        optimizer = torch.optim.SGD([torch.zeros(1)])
        get_scheduler(arguments.lr_scheduler_type, optimizer, 1, 2, arguments.lr_scheduler_kwargs)
    except (ValueError, TypeError, AttributeError, ImportError, RuntimeError) as error:
        raise ValueError(f"The `arguments` of stage {name!r} do not go together: {error}") from error


def stage_folder(recipe: Recipe, number: int) -> Path:
    """Where stage `number`, from 1, keeps its things."""
    return Path(recipe.output_dir) / f"{number}-{recipe.stages[number - 1].name}"


def is_done(place: Path) -> bool:
    """Whether the stage of a folder has ended, see `write_model`."""
    return (place / "model").is_dir()


def seed_of(recipe: Recipe, number: int) -> int:
    """What stage `number`, from 1, draws everything with."""
    return recipe.seed + number


def final_model(recipe: Recipe) -> Path:
    """Where the trained model is when all stages are done."""
    return stage_folder(recipe, len(recipe.stages)) / "model"


def claim(place: Path, stage: Stage, recipe: Recipe, processes: int, contents: str = "", weights: str = "") -> None:
    """Notes what a stage is run with, also the contents of its data files (see `Task.check`) and the weights that the
    run starts from (see `weights_of`). One that has a checkpoint must be gone on with as it was begun, and by as many
    processes: they share its batches and masks."""
    notes, done = place / "stage.json", is_done(place)
    run = {"model": recipe.model, "seed": recipe.seed, "dtype": recipe.dtype, "processes": processes}
    run["sharding"] = next(
        (way for way in ("FSDP", "DEEPSPEED") if os.environ.get(f"ACCELERATE_USE_{way}") == "true"), ""
    )
    run |= {"records": contents, "weights": weights}
    settings = asdict(stage) | run
    if not done and not any(place.glob("checkpoint-*")):
        place.mkdir(parents=True, exist_ok=True)
        (place / NOTES).unlink(missing_ok=True)  # of an earlier start that failed
        notes.write_text(json.dumps(settings, indent=2) + "\n")
        return
    before = run | asdict(Stage(stage.name)) | read_notes(notes)  # a setting may be newer than the notes
    of_the_run = ("processes", "sharding", "records", "weights") if done else ()  # of no account when it is over
    changed = [key for key in settings if before.get(key) != settings[key] and key not in of_the_run]
    if changed:
        differences = "; ".join(line for key in changed for line in differing(key, before.get(key), settings[key]))
        raise ValueError(
            f"Stage {stage.name!r} was begun with other settings ({differences}): delete {place} to start it "
            f"anew, change the recipe or its files back (see {notes}), or choose another `output_dir`."
        )


def differing(name: str, before: Any, now: Any) -> list[str]:
    """What of a setting has changed, in words."""
    if before == now:
        return []
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*before, *now])
        return [line for key in keys for line in differing(f"{name}.{key}", before.get(key), now.get(key))]
    if name in ("records", "weights"):
        what = {"records": "data files", "weights": "model's files"}[name]
        return [f"{name}: the {what} hold something else than before"]
    return [f"{name}: {before!r} before, {now!r} now"]


def weights_of(start: str) -> str:
    """What tells the weights in a folder from others, by some blocks of each file; "" where there is no folder."""
    if not Path(start).is_dir():
        return ""
    digest = hashlib.sha256()
    for file in sorted(Path(start).glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as opened:
            for place in range(0, size, max(BLOCK, size // BLOCKS)):
                opened.seek(place)
                digest.update(opened.read(BLOCK))
    return digest.hexdigest()


def read_notes(notes: Path) -> dict[str, Any]:
    """The settings that a stage was begun with; ValueError if they are lost."""
    try:
        return json.loads(notes.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{notes}, which says what this stage was begun with, cannot be read ({error}): delete {notes.parent} to "
            "start the stage anew."
        ) from error


def run_stage(stage: Stage, start: str, place: Path, seed: int, dtype: str = "auto") -> None:
    """Trains one stage from its last checkpoint, if there is one, and writes `model/`."""
    set_seed(seed)
    shared = stage.shared_arguments(int(os.environ.get("WORLD_SIZE", 1)))
    arguments = TrainingArguments(str(place), **(default_arguments() | {"seed": seed} | shared))
    model, processor = load(start, seed, dtype)
    trained = add_adapter(model, LoraOptions(**stage.lora)) if stage.lora else model
    task = find_task(stage.task)(trained, processor, seed=seed, **stage.options)
    task.folder = place
    trained_heads = load_file(Path(start) / HEADS) if (Path(start) / HEADS).is_file() else {}
    take_over_heads(task, trained_heads)
    examiners = [DenoisingEvalCallback(task, **stage.denoising)] if stage.denoising else []
    trainer = DiffusionTrainer(
        model=task,
        args=arguments,
        train_dataset=task.dataset(),
        data_collator=task.collate,
        optimizer_options=OptimizerOptions(**stage.rates),
        callbacks=examiners,
    )
    refuse_sharded(stage, trainer)
    for examiner in examiners:
        examiner.trainer = trainer
    if arguments.dataloader_num_workers:
        task.prepare_for_workers(arguments.dataloader_num_workers)
    trainer.train(resume_from_checkpoint=last_checkpoint(place, arguments.world_size))
    weights = trainer.gather_weights()
    if trainer.is_world_process_zero():
        (place / "log.json").write_text(json.dumps(trainer.state.log_history, indent=1) + "\n")
        heads = trained_heads | part_of_task(weights, "heads.")
        weights = part_of_task(weights, "model.")
        if stage.lora:
            base, _ = load(start, seed, dtype)
            save_adapter(task.model, place / "adapter", base, weights)
            model = load_adapter(base, place / "adapter", merge=True)
            weights = model.state_dict()
        if stage.interpolation < 1:
            weights = interpolate(load(start, seed, dtype)[0].state_dict(), weights, stage.interpolation)
        write_model(place / "model", model, processor, weights, heads)
        for remark in task.remarks():
            print(f"Stage {stage.name!r}: {remark}")
    trainer.accelerator.wait_for_everyone()


def refuse_sharded(stage: Stage, trainer: DiffusionTrainer) -> None:
    """A ValueError for what only whole weights in one process can do: the others would be waited for without end."""
    if stage.denoising and trainer.is_sharded:
        raise ValueError(
            f"Stage {stage.name!r} has `denoising`, which sharded weights (FSDP, DeepSpeed) cannot: leave it out."
        )
    if stage.lora and trainer.is_deepspeed_enabled:
        raise ValueError(f"Stage {stage.name!r} has `lora`, which DeepSpeed's shards cannot be merged with: use FSDP.")


def part_of_task(weights: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): t.contiguous() for name, t in weights.items() if name.startswith(prefix)}


def interpolate(start: dict[str, torch.Tensor], end: dict[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
    """Each tensor of `end` after that share of the way from `start`, 0..1; both have the same names and shapes."""
    return {name: torch.lerp(start[name].to(tensor), tensor, share) for name, tensor in end.items()}


def write_model(folder: Path, model: Any, processor: Any, weights: dict[str, Any], heads: dict[str, Any]) -> None:
    """Writes a stage's result, all of it or nothing: the folder's being there says that the stage is done."""
    unfinished = folder.with_name("unfinished-model")
    model.save_pretrained(unfinished, state_dict=weights)
    processor.save_pretrained(unfinished)
    if heads:
        save_file(heads, unfinished / HEADS)
    unfinished.rename(folder)


def take_over_heads(task: Task, trained: dict[str, torch.Tensor]) -> None:
    """Loads those heads that an earlier stage trained too, if they have the same shapes."""
    mine = task.heads.state_dict()
    same = {name: tensor for name, tensor in trained.items() if name in mine and tensor.shape == mine[name].shape}
    task.heads.load_state_dict(mine | same)


def default_arguments() -> dict[str, Any]:
    """What a recipe need not say."""
    on_cpu = not torch.cuda.is_available()
    cores = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return {
        "use_cpu": on_cpu,
        "ddp_backend": "gloo" if on_cpu and "WORLD_SIZE" in os.environ else None,
        "dataloader_pin_memory": not on_cpu,
        "dataloader_num_workers": 0 if on_cpu else max(1, min(MOST_WORKERS, cores - 2)),
        "tf32": True if is_torch_tf32_available() else None,
        "remove_unused_columns": False,
        "logging_steps": 20,
        "save_steps": 200,
        "save_total_limit": 2,
        "ddp_find_unused_parameters": False if "WORLD_SIZE" in os.environ else None,
        "report_to": ["tensorboard"],
    }


def find_builder(start: str) -> Callable[[int], Any] | None:
    """The function of "module:function"; None for a checkpoint's folder or id, after a look whether it is there."""
    if start.partition(":")[2] and not Path(start).exists():
        try:
            build = find_named("function", start, {})
        except ValueError:
            build = None
        if not callable(build):
            raise ValueError(f"`model` is {start!r}, which is no folder and no 'module:function' that can be called.")
        return build
    find_checkpoint(start)
    return None


def load(start: str, seed: int, dtype: str = "auto") -> tuple[VidLaDAForConditionalGeneration, VidLaDAProcessor]:
    """Model, in a floating type or its own, and processor from a folder or id, or from "module:function"."""
    build = find_builder(start)
    if build is not None:
        return build(seed)
    model = VidLaDAForConditionalGeneration.from_pretrained(start, dtype=dtype)
    return model, VidLaDAProcessor.from_pretrained(start)


def launch(recipe_file: Path, processes: int) -> None:
    """Runs a recipe in so many processes of this machine, which share each batch.

    Raises:
        ValueError, OSError: as `train`, before a process is started; or the run failed, and its own messages say why.
    """
    prepare(Recipe.from_yaml(recipe_file), processes)
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += ["-m", __name__, str(recipe_file)]
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "error"  # what stopped a process stands far above what its stop did to the others
        environment = {"OMP_NUM_THREADS": threads, **os.environ, PREPARED: str(told)}
        done = subprocess.run(command, env=environment, check=False)
        reason = told.read_text() if told.is_file() else f"exit code {done.returncode}"
    if done.returncode:
        raise ValueError(f"The run in {processes} processes was stopped: {reason}")


def main(recipe_file: str) -> None:
    """The command of each process, which `launch`, accelerate or torchrun starts."""
    try:
        train(Recipe.from_yaml(recipe_file))
    except (ValueError, OSError) as error:
        if PREPARED in os.environ:
            Path(os.environ[PREPARED]).write_text(str(error))
        sys.exit(f"vidlada: {error}")


if __name__ == "__main__":
    main(sys.argv[1])


__all__ = ["final_model", "launch", "train"]
