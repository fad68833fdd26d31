"""Everything about a recipe that can be known to fail, before anything is loaded."""

import os
from pathlib import Path

import torch
from transformers import TrainingArguments, get_scheduler
from transformers.integrations import get_reporting_integration_callbacks

from .callbacks import DenoisingEvalCallback
from .model_loading import find_builder
from .recipe import Recipe
from .run_state import StageRun, claim, stage_runs
from .task import TASKS, find_task
from .trainer import default_arguments


def prepare(recipe: Recipe, processes: int) -> None:
    """Checks a recipe, also the texts of a stage that has still to run, and claims the stages' folders.

    Raises:
        ValueError, OSError: something cannot work, or a stage was begun with other settings.
    """
    find_builder(recipe.model)
    if Path(recipe.output_dir).exists() and not Path(recipe.output_dir).is_dir():
        raise ValueError(f"`output_dir` must be a folder, and {recipe.output_dir} is a file: name another.")
    claim(recipe, processes, [check_stage(run, processes) for run in stage_runs(recipe)])


def check_stage(run: StageRun, processes: int) -> str:
    """Raises as `prepare`, for one stage.

    Returns:
        The fingerprint of its data files; "" for a stage that is done.
    """
    if run.is_done:
        return ""
    stage = run.stage
    DenoisingEvalCallback.check(stage.denoising, f"`denoising` of stage {stage.name!r}")
    shared = stage.shared_arguments(processes)
    if processes == 1 or "RANK" not in os.environ:  # they would wait for processes that are not here yet
        check_together(run, shared)
    records = find_task(stage.task).check(stage.options, run.seed)
    is_grouped = stage.arguments.get("train_sampling_strategy") == "group_by_length"
    if is_grouped and stage.task in TASKS and not records:  # of other tasks the trainer looks at their dataset
        raise ValueError(
            f"Stage {stage.name!r} has `train_sampling_strategy: group_by_length`, which needs data from files "
            "('llava', 'messages'): leave it out."
        )
    return records


def check_together(run: StageRun, arguments: dict) -> None:
    """Raises a ValueError for arguments of transformers' that it takes one by one, and not together."""
    try:
        given = TrainingArguments(str(run.folder), **(default_arguments() | arguments))
        get_reporting_integration_callbacks(given.report_to)
        optimizer = torch.optim.SGD([torch.zeros(1)])
        get_scheduler(given.lr_scheduler_type, optimizer, 1, 2, given.lr_scheduler_kwargs)
    except (ValueError, TypeError, AttributeError, ImportError, RuntimeError) as error:
        raise ValueError(f"The `arguments` of stage {run.stage.name!r} do not go together: {error}") from error


__all__ = ["prepare"]
