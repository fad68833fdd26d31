"""A training run as written in YAML: where it starts, its stages, and what each of them does."""

from dataclasses import asdict, dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from transformers import SchedulerType, TrainingArguments

from .lora import LoraOptions
from .optimizer import PARTS, OptimizerOptions
from .schema import check_arguments

# Arguments of `Trainer` that would have no effect, or a bad one -> what to do instead.
ELSEWHERE = dict.fromkeys(
    ("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "optim", "optim_args"),
    "say it in `rates`, see `OptimizerOptions`",
) | {"save_only_model": "a run that is stopped could not go on, so leave it out"}
BATCH_ARGUMENTS = ("per_device_train_batch_size", "gradient_accumulation_steps")
DTYPES = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Stage:
    """One stage of a recipe.

    Args:
        name: of its folder.
        task: a name of `task.TASKS`, or "module:Class".
        options: keyword arguments of the task.
        rates: fields of `OptimizerOptions`.
        arguments: fields of transformers' `TrainingArguments`.
        denoising: how its answers are tested during training (arguments of `DenoisingEvalCallback`); none if empty.
        lora: train an adapter beside the frozen model, not its own weights (fields of `LoraOptions`); none if empty.
            Its rate is `text` of the rates. The stage leaves `adapter/`, and `model/` with the adapter merged.
        interpolation: how far the stage's result is on the straight line from the weights that it began with to those
            that it ended with, above 0 up to 1. Less than 1 keeps more of what was known before, above all of what this
            stage's data do not show (WiSE-FT, arXiv 2109.01903, there "alpha"). Heads stay as they ended.
        batch_size: examples of an optimizer step, of all processes and micro-batches together: a process's batch, or
            with `per_device_train_batch_size` the number of its micro-batches, follows from it, so that a recipe does
            the same on any number of GPUs. 0: what `arguments` say.
    """

    name: str
    task: str = "conversations"
    options: dict[str, Any] = field(default_factory=dict)
    rates: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    denoising: dict[str, Any] = field(default_factory=dict)
    lora: dict[str, Any] = field(default_factory=dict)
    interpolation: float = 1.0
    batch_size: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.interpolation <= 1:
            raise ValueError(
                f"`interpolation` of stage {self.name!r} must be above 0 and at most 1, got {self.interpolation}."
            )
        if self.lora and self.interpolation < 1:
            raise ValueError(f"Stage {self.name!r} has `lora` and `interpolation`: lower `alpha` of `lora` instead.")
        if self.batch_size < 0:
            raise ValueError(f"`batch_size` of stage {self.name!r} must be at least 1, got {self.batch_size}.")
        takers = {"rates": OptimizerOptions, "arguments": TrainingArguments, "lora": LoraOptions}
        for name, taker in takers.items():
            check_arguments(getattr(self, name), taker, f"`{name}` of stage {self.name!r}", besides=("output_dir",))
        rates = OptimizerOptions(**self.rates)
        LoraOptions(**self.lora)
        if not any(getattr(rates, part) for part in (["text"] if self.lora else PARTS)):
            what = "the rate `text`, which trains the adapter, is" if self.lora else "all rates are"
            raise ValueError(f"Nothing is left to train in stage {self.name!r}: {what} 0.")
        self._check_arguments()

    def _check_arguments(self) -> None:
        for name in self.arguments:
            if name in ELSEWHERE:
                raise ValueError(f"`{name}` in `arguments` of stage {self.name!r}: {ELSEWHERE[name]}.")
        for argument in fields(TrainingArguments):
            choices, given = argument.metadata.get("choices"), self.arguments.get(argument.name)
            if choices and given is not None and given not in choices:
                known = ", ".join(map(str, choices))
                raise ValueError(f"`{argument.name}` of stage {self.name!r} must be one of {known}, got {given!r}.")
        SchedulerType(self.arguments.get("lr_scheduler_type", "linear"))
        for name in BATCH_ARGUMENTS:
            if self.arguments.get(name, 1) < 1:
                raise ValueError(f"`{name}` of stage {self.name!r} must be at least 1, got {self.arguments[name]}.")

    def shared_arguments(self, processes: int) -> dict[str, Any]:
        """`arguments` for each of so many processes, which share `batch_size`.

        Raises:
            ValueError: it cannot be shared evenly, or `arguments` say all of it themselves.
        """
        if not self.batch_size:
            return self.arguments
        given = [name for name in BATCH_ARGUMENTS if name in self.arguments]
        if len(given) == len(BATCH_ARGUMENTS):
            raise ValueError(f"Stage {self.name!r} has `batch_size` and both {' and '.join(given)}: leave one out.")
        shares = processes * (self.arguments[given[0]] if given else 1)
        if self.batch_size % shares:
            by = f"{processes} processes" + (f" and `{given[0]}` {self.arguments[given[0]]}" if given else "")
            raise ValueError(f"`batch_size` {self.batch_size} of stage {self.name!r} is not divisible by {by}.")
        left = next(name for name in BATCH_ARGUMENTS if name not in given)
        return self.arguments | {left: self.batch_size // shares}


@dataclass(frozen=True)
class Recipe:
    """A whole run.

    Args:
        model: a checkpoint's folder or id, or "module:function" that builds (model, processor) from a `seed`.
        output_dir: where stages, logs and checkpoints go.
        stages: in their order; each begins with the weights that the one before ended with.
        seed: of weights, data and masks.
        dtype: of the weights while they are trained: "float32", "bfloat16", or "auto" for that of the checkpoint.
            AdamW loses small steps on bfloat16 weights, so use "float32" with `bf16: true` in the arguments unless what
            runs it keeps float32 copies (DeepSpeed does).
    """

    model: str
    output_dir: str
    stages: tuple[Stage, ...]
    seed: int = 0
    dtype: str = "auto"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"`dtype` must be one of {', '.join(DTYPES)}, got {self.dtype!r}.")

    @classmethod
    def from_yaml(cls, path: str | Path) -> "Recipe":
        """Reads a recipe.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: no YAML; a key that is unknown or missing, or a value of another type, and where it is written.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"There is no recipe {path}.")
        return cls.from_dict(read_yaml(path), str(path))

    @classmethod
    def from_dict(cls, content: Any, where: str = "the recipe") -> "Recipe":
        """Builds a recipe from parsed YAML; see `from_yaml` for the errors."""
        check_arguments(content, cls, where, besides=("stages",), more=("stages",))
        stages = content.get("stages")
        if not isinstance(stages, list) or not stages:
            raise ValueError(f"`stages` of {where} must be a list of at least one stage.")
        for number, stage in enumerate(stages, 1):
            check_arguments(stage, Stage, f"stage {number} of {where}")
        names = [stage["name"] for stage in stages]
        if len(set(names)) < len(names):
            raise ValueError(f"Two stages of {where} have the same name: {', '.join(names)}.")
        return cls(**(content | {"stages": tuple(Stage(**stage) for stage in stages)}))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `from_dict` takes them."""
        return asdict(self) | {"stages": [asdict(stage) for stage in self.stages]}


def read_yaml(path: Path) -> Any:
    """What a file says; ValueError, with its path, if it is no YAML."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {error}") from error


def find_named(kind: str, name: str, known: dict[str, str]) -> Any:
    """What a name in a recipe stands for.

    Args:
        kind: of thing, for the message: "task", "source".
        name: a known one, or "module:Class" of a user's own.
        known: name -> "module:Class".

    Raises:
        ValueError: there is none; the message lists the known names.
    """
    module, _, attribute = known.get(name, name).partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        names = ", ".join(map(repr, known))
        raise ValueError(f"There is no {kind} {name!r}: known are {names}, or 'module:Class' of your own.") from error


__all__ = ["Recipe", "Stage", "find_named", "read_yaml"]
