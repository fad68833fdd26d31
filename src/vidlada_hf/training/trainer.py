"""transformers' Trainer for the masked-diffusion objective."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch.utils.data import SequentialSampler
from transformers import Trainer
from transformers.trainer_utils import rotate_checkpoints
from transformers.utils import is_torch_tf32_available

from ..hub.checksums import write_checksums
from ..modeling.objective_vidlada import TimeSampling
from .callbacks import ElapsedTimeCallback
from .checkpointing import (
    describe_damage,
    gather_optimizer,
    in_first_process,
    last_checkpoint,
    load_state,
    random_state,
    save_state,
    scatter_optimizer,
    scatter_weights,
    set_random_state,
)
from .data.samplers import SeededLengthGroupedSampler
from .global_batch import Average, ProcessShare, add_loss_scales, add_masks, add_weights, count_targets
from .optimizer import OptimizerOptions, build_optimizer, freeze
from .task import Task

MAX_WORKERS = 14  # that prepare batches for a GPU, if a recipe does not say how many


class DiffusionTrainer(Trainer):
    """A `Trainer` with rates for each part of the model, and checkpoints without pickle.

    The model computes its own loss; each step's masks are drawn for its global batch (see `global_batch`).

    Args:
        optimizer_options: the rates; the scheduler of `TrainingArguments` scales them all.
        time_sampling: how the masking rates of a batch are drawn (see `draw_mask_probabilities`).
        average: whether the loss is a mean over "examples", the official rule, or over answer "tokens". Where the model
            is a `Task`, its own `time_sampling` and `average` count.
        *args, **kwargs: as of `Trainer`.
    """

    optimizer: Any

    def __init__(
        self,
        *args: Any,
        optimizer_options: OptimizerOptions | None = None,
        time_sampling: TimeSampling = "independent",
        average: Average = "examples",
        **kwargs: Any,
    ) -> None:
        self.optimizer_options = optimizer_options or OptimizerOptions()
        self.time_sampling, self.average = time_sampling, average
        self.metrics: dict[str, list[float]] = {}
        self.elapsed = ElapsedTimeCallback()
        super().__init__(*args, **kwargs)
        self.add_callback(self.elapsed)
        freeze(self.model, self.optimizer_options)

    def create_optimizer(self, model: Any = None) -> Any:
        """Muon and AdamW with the options' rates.

        Raises:
            ValueError: Muon where matrices are cut into shards, which it has to see whole.
        """
        if self.is_sharded and (self.optimizer_options.muon or self.optimizer_options.tower_muon):
            raise ValueError(
                "Muon needs whole matrices, which FSDP and DeepSpeed cut up: leave `muon` out of the rates."
            )
        if self.optimizer is None:
            self.optimizer = build_optimizer(self.model if model is None else model, self.optimizer_options)
        return self.optimizer

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As in `Trainer`, but only a whole checkpoint is resumed from, of which every file is read first.

        Args:
            resume_from_checkpoint: a folder; or True for the newest whole checkpoint, or without one the beginning.

        Raises:
            ValueError: files of that folder are missing or damaged.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_checkpoint(self.args.output_dir)
        elif resume_from_checkpoint:
            checkpoint = os.fspath(resume_from_checkpoint)
            if damage := in_first_process(lambda: describe_damage(checkpoint)):
                raise ValueError(f"{checkpoint} is not whole ({damage}): resume from another checkpoint.")
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, *args: Any, **kwargs: Any
    ) -> Any:
        """The model's own loss, or a task's, whose metrics are kept for the log."""
        scale = inputs.get("loss_scale", 1)
        inputs = {name: value for name, value in inputs.items() if name != "loss_scale"}
        loss, outputs = super().compute_loss(model, inputs, True, *args, **kwargs)
        loss = loss * scale
        for name, value in (outputs.get("metrics") or {}).items():
            self.metrics.setdefault(name, []).append(value)
        return (loss, outputs) if return_outputs else loss

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """The micro-batches of a step, with the masks that their examples have in the global batch."""
        if self.state.global_step >= self.state.max_steps:  # resumed at its end, where `Trainer` would do one step more
            self.control.should_training_stop = True
            return [], None
        batches, items = super().get_batch_samples(*args, **kwargs)
        rules: Any = self.model if isinstance(self.model, Task) else self
        if rules.time_sampling is not None and batches:
            self._add_masks(batches, rules.time_sampling, rules.average)
        return batches, items

    def _add_masks(self, batches: Sequence[dict[str, Any]], sampling: TimeSampling, average: Average) -> None:
        """The masks, and the weights with which the micro-batches' losses make that of the global batch."""
        repeated = self._count_repeated(batches)
        share = ProcessShare(self.args.process_index, self.args.world_size, repeated)
        add_masks(batches, sampling, self.args.seed, self.state.global_step, share)
        add_loss_scales(batches)
        if average == "tokens" or repeated:
            counts = count_targets(batches, average, share)
            total = self.accelerator.reduce(torch.cat(counts).sum(), reduction="sum")
            add_weights(batches, counts, int(total), share.processes * sum(map(len, counts)))

    def _count_repeated(self, batches: Sequence[dict[str, Any]]) -> int:
        """How many examples accelerate repeats to fill an epoch's last batch for all processes: the last ones."""
        state = self.accelerator.gradient_state
        if not state.end_of_dataloader or state.remainder < 1:
            return 0
        return self.args.world_size * len(batches[-1]["labels"]) - state.remainder

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        if getattr(self.args, "train_sampling_strategy", "random") == "group_by_length":
            return self._by_length()
        if getattr(self.train_dataset, "in_order", False):
            return SequentialSampler(self.train_dataset)
        return super()._get_train_sampler(*args, **kwargs)

    def _by_length(self) -> SeededLengthGroupedSampler:
        """transformers' own grouping would open every example to measure it; our datasets know their `lengths`."""
        if not hasattr(self.train_dataset, "lengths"):
            kind = type(self.train_dataset).__name__
            raise ValueError(f"`group_by_length` needs a dataset with `lengths`, which {kind} has not: leave it out.")
        together = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return SeededLengthGroupedSampler(together, self.train_dataset.lengths, seed)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds the mean of each metric since the last line of the log (of the first process), and the seconds that the
        run has taken, without those that a kill has undone."""
        means = {name: round(float(np.nanmean(values)), 4) for name, values in self.metrics.items()}
        self.metrics.clear()
        super().log(logs | means | {"seconds": self.elapsed.seconds}, *args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Weights and arguments; the arguments as JSON, which `Trainer` would pickle.

        Of a task only what is trained is saved: the rest is the model that its stage starts from.
        """
        if not self.args.should_save:  # under FSDP all processes come here, those after the first without weights
            return
        if isinstance(self.model, Task):
            trained = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
            weights = self.model.state_dict() if state_dict is None else state_dict
            state_dict = {name: tensor for name, tensor in weights.items() if name in trained}
        super()._save(output_dir, state_dict)
        folder = Path(output_dir or self.args.output_dir)
        (folder / "training_args.bin").unlink(missing_ok=True)
        self._save_arguments(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if not self.is_fsdp_enabled:
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        weights = load_file(Path(resume_from_checkpoint) / "model.safetensors")
        self._issue_warnings_after_load(scatter_weights(self.model if model is None else model, weights))

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """A task's frozen tensors are not in a checkpoint, on purpose; ValueError if trained ones are not."""
        if not isinstance(self.model, Task):
            return super()._issue_warnings_after_load(load_result)
        frozen = {name for name, parameter in self.model.named_parameters() if not parameter.requires_grad}
        buffers = {name for name, _ in self.model.named_buffers()}
        if missing := sorted(set(load_result.missing_keys) - frozen - buffers):
            raise ValueError(f"The checkpoint lacks {len(missing)} trained tensors, {missing[0]} first: delete it.")

    def gather_weights(self) -> dict[str, torch.Tensor]:
        """All weights, whole, in the first process; every process must call it."""
        if self.is_sharded:
            return self.accelerator.get_state_dict(self.model_wrapped)
        return self.model.state_dict()

    @property
    def is_sharded(self) -> bool:
        """Whether FSDP or DeepSpeed cuts weights and states into shards."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """As in `Trainer`; older checkpoints are deleted only when all of the new one is on the disk."""
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()  # each process has written its random state
        if self.args.should_save:
            run = self._get_output_dir(trial=trial)
            checkpoint = Path(run) / f"checkpoint-{self.state.global_step}"
            self._save_arguments(checkpoint)
            write_checksums(checkpoint)
            rotate_checkpoints(run, limit, self.state.best_model_checkpoint, use_mtime=True)

    def _save_arguments(self, folder: Path) -> None:
        (folder / "training_args.json").write_text(self.args.to_json_string())

    # DeepSpeed keeps its shards in a format of its own, pickled.

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_deepspeed_enabled:
            return super()._save_optimizer_and_scheduler(output_dir)
        fsdp = self.is_fsdp_enabled
        optimizer = gather_optimizer(self.model, self.optimizer) if fsdp else self.optimizer.state_dict()
        if self.args.should_save:
            states = {"optimizer": optimizer, "scheduler": self.lr_scheduler.state_dict()}
            save_state(states, Path(output_dir) / "optimizer")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.is_deepspeed_enabled:
            return super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        states = load_state(Path(checkpoint) / "optimizer")
        if self.is_fsdp_enabled:
            scatter_optimizer(self.model, self.optimizer, states["optimizer"])
        else:
            self.optimizer.load_state_dict(states["optimizer"])
        self.lr_scheduler.load_state_dict(states["scheduler"])

    def _save_rng_state(self, output_dir: str) -> None:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        save_state(random_state(), self._rng_file(output_dir))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            set_random_state(load_state(self._rng_file(checkpoint)))

    def _rng_file(self, folder: str) -> Path:
        return Path(folder) / f"random_{self.args.process_index}"


def default_arguments() -> dict[str, Any]:
    """`TrainingArguments` that a recipe need not give."""
    on_cpu = not torch.cuda.is_available()
    cores = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return {
        "use_cpu": on_cpu,
        "ddp_backend": "gloo" if on_cpu and "WORLD_SIZE" in os.environ else None,
        "dataloader_pin_memory": not on_cpu,
        "dataloader_num_workers": 0 if on_cpu else max(1, min(MAX_WORKERS, cores - 2)),
        "tf32": True if is_torch_tf32_available() else None,
        "remove_unused_columns": False,
        "logging_steps": 20,
        "save_steps": 200,
        "save_total_limit": 2,
        "ddp_find_unused_parameters": False if "WORLD_SIZE" in os.environ else None,
        "report_to": ["tensorboard"],
    }


__all__ = ["DiffusionTrainer", "default_arguments"]
