"""What a stage of training optimizes, and on what: one class a task, named in a recipe."""

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.utils.data import Dataset

from ..modeling.modeling_vidlada import VidLaDAForConditionalGeneration
from .recipe import find_named
from .schema import check_arguments

# name in a recipe -> module and class; other classes are named "module:Class".
TASKS = {
    "conversations": "vidlada_hf.training.conversations:Conversations",
    "cells": "moving_shapes.train.cells:Cells",
    "lessons": "moving_shapes.train.packed_qa:PackedQATask",
    "answers": "moving_shapes.train.answers:Answers",
}


class Task(nn.Module):
    """The model, and beside it whatever only training needs: heads, examples, a loss.

    Subclasses take their options as keyword arguments of `__init__` and write `dataset`, `collate` and `forward`.
    Parameters of `heads` have a rate of their own. A following stage of a task with the same heads goes on with them;
    they are no part of the trained model.

    Args:
        model, processor: what is trained, and its processor.
        seed: of everything that the task draws.
    """

    heads: nn.ModuleDict
    accepts_loss_kwargs: ClassVar[bool] = False  # read by `Trainer`: the loss is a mean already

    def __init__(self, model: VidLaDAForConditionalGeneration, processor: Any, seed: int = 0) -> None:
        super().__init__()
        self.model, self.processor, self.seed = model, processor, seed
        self.folder: Path | None = None  # of the stage, once it runs
        self.heads = nn.ModuleDict()

    @classmethod
    def check(cls, options: dict[str, Any], seed: int = 0) -> str:
        """Raises a ValueError or OSError for options that cannot work, as far as that is known before a run starts.

        Returns:
            What tells the contents of the files that the options name from others; "" where they name none.
        """
        cls.check_keys(options)
        return ""

    @classmethod
    def check_keys(cls, options: dict[str, Any]) -> None:
        """Raises a ValueError for options that `__init__` does not take: unknown, missing, or of another type."""
        check_arguments(options, cls, f"`options` of the task {cls.__name__}", besides=("model", "processor", "seed"))

    def dataset(self) -> Dataset:
        """The training examples. With an attribute `in_order` that is true they are not shuffled."""
        raise NotImplementedError

    def collate(self, examples: list[Any]) -> dict[str, Any]:
        """Examples -> the keyword arguments of `forward`."""
        raise NotImplementedError

    def prepare_for_workers(self, workers: int) -> None:
        """Called before the training where `collate` will run in so many worker processes. There the model must not
        compute: a process that was forked cannot use its parent's GPU."""

    def remarks(self) -> list[str]:
        """What to tell the user when the stage has ended."""
        return []

    def gradient_checkpointing_enable(self, **kwargs: Any) -> None:
        """The model's, for `TrainingArguments`' option of that name."""
        self.model.gradient_checkpointing_enable(**kwargs)

    def activation_checkpointing_enable(self, **kwargs: Any) -> None:
        """The same under the newer name."""
        self.model.activation_checkpointing_enable(**kwargs)

    def forward(self, **batch: Any) -> dict[str, Any]:
        """Returns "loss", a scalar, and optionally "metrics", a dict of numbers for the log."""
        raise NotImplementedError


def find_task(name: str) -> type[Task]:
    """The class of a task by its name in a recipe.

    Raises:
        ValueError: there is none; the message lists the known names.
    """
    return find_named("task", name, TASKS)


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The part of labels, 0..1, that is the most likely class; labels below 0 do not count."""
    counted = labels >= 0
    return (logits.argmax(-1) == labels)[counted].float().mean().item()


__all__ = ["TASKS", "Task", "accuracy", "find_task"]
