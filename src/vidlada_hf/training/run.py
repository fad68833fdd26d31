"""A recipe from start to end: each stage is loaded, trained and exported.

`run_state` says what the folder of a stage holds. A run that was killed goes on where it was when the same command is
given again.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainingArguments, set_seed

from ..hub.checksums import CHECKSUMS, sync_folder, write_checksums
from ..processes import exit_with_parent
from .callbacks import DenoisingEvalCallback
from .checkpointing import describe_damage, in_first_process
from .lora import LoraOptions, add_adapter, load_adapter, save_adapter
from .model_loading import load_model
from .optimizer import OptimizerOptions
from .preparation import prepare
from .recipe import Recipe, Stage
from .run_state import StageRun, final_model, stage_runs
from .task import Task, find_task
from .trainer import DiffusionTrainer, default_arguments

HEADS = "heads.safetensors"  # beside a stage's model, see `Task`


def train(recipe: Recipe, is_prepared: bool = False) -> Path:
    """Runs the stages that are not done yet.

    Args:
        is_prepared: whether `prepare` has been called for all processes of the run.

    Returns:
        The folder of the trained model.

    Raises:
        ValueError: a stage was begun with other settings, or its options are impossible.
    """
    if os.environ.get("RANK", "0") == "0" and not is_prepared:  # an error once, not by each process
        prepare(recipe, int(os.environ.get("WORLD_SIZE", 1)))
    for run in stage_runs(recipe):
        if not run.is_done:
            train_stage(run)
    return final_model(recipe)


def train_stage(run: StageRun) -> None:
    """Trains one stage from its last checkpoint, if there is one, and leaves its model."""
    set_seed(run.seed)
    shared = run.stage.shared_arguments(int(os.environ.get("WORLD_SIZE", 1)))
    # Before the model is loaded: DeepSpeed cuts weights into shards from then on.
    arguments = TrainingArguments(str(run.folder), **(default_arguments() | {"seed": run.seed} | shared))
    refuse_damaged(run.start)
    task, processor = load_task(run)
    trainer = build_trainer(run, task, arguments)
    trainer.train(resume_from_checkpoint=True)
    weights = trainer.gather_weights()
    if trainer.is_world_process_zero():
        (run.folder / "log.json").write_text(json.dumps(trainer.state.log_history, indent=1) + "\n")
        export(run, task, processor, weights)
        for line in task.report():
            print(f"Stage {run.stage.name!r}: {line}")
    trainer.accelerator.wait_for_everyone()


def refuse_damaged(start: str) -> None:
    """A ValueError if a folder has checksums, as a stage's model has, and its files do not fit them."""
    if (Path(start) / CHECKSUMS).is_file() and (damage := in_first_process(lambda: describe_damage(start))):
        raise ValueError(
            f"The model to start from, {start}, is not whole ({damage}). If it was changed on purpose, delete its "
            f"{CHECKSUMS}; else train or copy it again."
        )


def load_task(run: StageRun) -> tuple[Task, Any]:
    """The stage's task, with the model and the heads that it starts from, and the model's processor as it is saved."""
    stage = run.stage
    model, processor = load_model(run.start, run.seed, run.dtype)
    trained = add_adapter(model, LoraOptions(**stage.lora)) if stage.lora else model
    task = find_task(stage.task)(trained, processor, seed=run.seed, **stage.options)
    task.folder = run.folder
    task.restore_heads(load_heads(run.start))
    return task, processor


def build_trainer(run: StageRun, task: Task, arguments: TrainingArguments) -> DiffusionTrainer:
    """What trains a stage's task.

    Raises:
        ValueError: the stage needs whole weights, and they are sharded.
    """
    evaluations = [DenoisingEvalCallback(task, **run.stage.denoising)] if run.stage.denoising else []
    trainer = DiffusionTrainer(
        model=task,
        args=arguments,
        train_dataset=task.dataset(),
        data_collator=task.collate,
        optimizer_options=OptimizerOptions(**run.stage.rates),
        callbacks=evaluations,
    )
    refuse_sharded(run.stage, trainer)
    for evaluation in evaluations:
        evaluation.trainer = trainer
    if arguments.dataloader_num_workers:
        task.prepare_for_workers(arguments.dataloader_num_workers)
    return trainer


def export(run: StageRun, task: Task, processor: Any, weights: dict[str, torch.Tensor]) -> None:
    """Writes the stage's model, with its adapter merged or its weights interpolated, and the heads.

    Args:
        weights: all of the task's, whole.
    """
    stage, model = run.stage, task.model
    heads = load_heads(run.start) | part_of(weights, "heads.")
    weights = part_of(weights, "model.")
    if stage.lora:
        base, _ = load_model(run.start, run.seed, run.dtype)
        save_adapter(model, run.folder / "adapter", base, weights)
        model = load_adapter(base, run.folder / "adapter", merge=True)
        weights = model.state_dict()
    if stage.interpolation < 1:
        start = load_model(run.start, run.seed, run.dtype)[0].state_dict()
        weights = interpolate(start, weights, stage.interpolation)
    write_model(run.model_folder, model, processor, weights, heads)


def load_heads(start: str) -> dict[str, torch.Tensor]:
    """The heads beside the model of an earlier stage; {} where there are none."""
    file = Path(start) / HEADS
    return load_file(file) if file.is_file() else {}


def refuse_sharded(stage: Stage, trainer: DiffusionTrainer) -> None:
    """A ValueError for what only whole weights in one process can do: the others would be waited for without end."""
    if stage.denoising and trainer.is_sharded:
        raise ValueError(
            f"Stage {stage.name!r} has `denoising`, which sharded weights (FSDP, DeepSpeed) cannot: leave it out."
        )
    if stage.lora and trainer.is_deepspeed_enabled:
        raise ValueError(f"Stage {stage.name!r} has `lora`, which DeepSpeed's shards cannot be merged with: use FSDP.")


def part_of(weights: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): t.contiguous() for name, t in weights.items() if name.startswith(prefix)}


def interpolate(start: dict[str, torch.Tensor], end: dict[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
    """Each tensor of `end` after that share of the way from `start`, 0..1; both have the same names and shapes."""
    return {name: torch.lerp(start[name].to(tensor), tensor, share) for name, tensor in end.items()}


def write_model(folder: Path, model: Any, processor: Any, weights: dict[str, Any], heads: dict[str, Any]) -> None:
    """Writes a stage's result, all of it or nothing: the folder's being there says that the stage is done."""
    unfinished = folder.with_name("unfinished-model")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
    model.save_pretrained(unfinished, state_dict=weights)
    processor.save_pretrained(unfinished)
    if heads:
        save_file(heads, unfinished / HEADS)
    write_checksums(unfinished)
    unfinished.rename(folder)
    sync_folder(folder.parent)


def main(recipe_file: str) -> None:
    """The command of each process that accelerate or torchrun starts."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        exit_with_parent()
    try:
        train(Recipe.from_yaml(recipe_file))
    except (ValueError, OSError) as error:
        sys.exit(f"vidlada: {error}")


if __name__ == "__main__":
    main(sys.argv[1])


__all__ = ["train"]
