"""What a stage of training optimizes, and on what: one class a task, named in a recipe."""

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.utils.data import Dataset

from ..modeling.modeling_vidlada import VidLaDAForConditionalGeneration
from ..modeling.objective_vidlada import TimeSampling
from .global_batch import Average
from .recipe import find_named
from .schema import check_arguments

# name in a recipe -> module and class; other classes are named "module:Class".
TASKS = {"conversations": "vidlada_hf.training.conversation_task:ConversationTask"}


class Task(nn.Module):
    """The model, and beside it whatever only training needs: heads, examples, a loss.

    A subclass takes its options as keyword arguments of `__init__`, or as a dataclass that `Options` names, and writes
    `dataset`, `collate` and `forward`.

    Heads are layers that only the loss of the task needs, such as a classifier of dense labels. What a subclass puts
    into `heads` is trained at the rate `heads` of `OptimizerOptions`. A stage saves its heads as `heads.safetensors`
    beside its model; a later stage starts with those that have the names and shapes of its own heads, and passes the
    others on. They are no part of the trained model: nothing but a following stage reads that file.

    Args:
        model, processor: what is trained, and its processor.
        seed: of everything that the task draws.

    Attributes:
        Options: a dataclass of the options; None where they are keyword arguments of `__init__`.
        time_sampling: how the trainer draws the masking rates of a global batch (see `global_batch`); None for a task
            that draws its own masks.
        average: what the loss is a mean over: "examples" or answer "tokens" of the global batch.
        folder: of the stage, once it runs.
    """

    Options: ClassVar[type | None] = None
    accepts_loss_kwargs: ClassVar[bool] = False  # read by `Trainer`: the loss is a mean already
    heads: nn.ModuleDict
    time_sampling: TimeSampling | None = None
    average: Average = "examples"

    def __init__(self, model: VidLaDAForConditionalGeneration, processor: Any, seed: int = 0) -> None:
        super().__init__()
        self.model, self.processor, self.seed = model, processor, seed
        self.folder: Path | None = None
        self.heads = nn.ModuleDict()

    @classmethod
    def check(cls, options: dict[str, Any], seed: int = 0) -> str:
        """Raises a ValueError or OSError for options that cannot work, as far as that is known before a run starts.

        Returns:
            A fingerprint of the contents of the files that the options name; "" where they name none.
        """
        cls.check_keys(options)
        return ""

    @classmethod
    def check_keys(cls, options: dict[str, Any]) -> None:
        """Raises a ValueError for options that the task does not take: unknown, missing, of another type, or refused by
        `Options`."""
        where = f"`options` of the task {cls.__name__}"
        check_arguments(options, cls.Options or cls, where, besides=("model", "processor", "seed"))
        if cls.Options is not None:
            cls.Options(**options)

    def dataset(self) -> Dataset:
        """The training examples. With an attribute `in_order` that is true they are not shuffled."""
        raise NotImplementedError

    def collate(self, examples: list[Any]) -> dict[str, Any]:
        """Examples -> the keyword arguments of `forward`."""
        raise NotImplementedError

    def prepare_for_workers(self, workers: int) -> None:
        """Called before the training where `collate` will run in so many worker processes. There the model must not
        compute: a process that was forked cannot use its parent's GPU."""

    def report(self) -> list[str]:
        """Lines for the user when the stage has ended."""
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

    def restore_heads(self, trained: dict[str, torch.Tensor]) -> None:
        """Loads those of an earlier stage's heads that have the name and the shape of one of this task's."""
        own = self.heads.state_dict()
        same = {name: tensor for name, tensor in trained.items() if name in own and tensor.shape == own[name].shape}
        self.heads.load_state_dict(own | same)


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
