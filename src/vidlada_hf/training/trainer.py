"""transformers' Trainer for the masked-diffusion objective."""

from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import SequentialSampler
from transformers import Trainer
from transformers.trainer_utils import get_last_checkpoint

from ..modeling.objective_vidlada import TimeSampling
from .optimizer import OptimizerOptions, build_optimizer
from .state import load_state, random_state, save_state, set_random_state
from .tasks import Task


class DiffusionTrainer(Trainer):
    """A `Trainer` with rates for each part of the model, and checkpoints without pickle.

    Args:
        optimizer_options: the rates; the scheduler of `TrainingArguments` scales them all.
        time_sampling: how the masking rates of a batch are drawn (see `draw_probabilities`).
        *args, **kwargs: as of `Trainer`. The model computes its own loss; masks are drawn from torch's global
            generator, whose state is part of a checkpoint.
    """

    def __init__(
        self,
        *args: Any,
        optimizer_options: OptimizerOptions | None = None,
        time_sampling: TimeSampling = "independent",
        **kwargs: Any,
    ) -> None:
        self.optimizer_options = optimizer_options or OptimizerOptions()
        self.time_sampling = time_sampling
        self.metrics: dict[str, list[float]] = {}
        super().__init__(*args, **kwargs)

    optimizer: Any

    def create_optimizer(self, model: Any = None) -> Any:
        """Muon and AdamW with the options' rates."""
        if self.optimizer is None:
            self.optimizer = build_optimizer(self.model if model is None else model, self.optimizer_options)
        return self.optimizer

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, *args: Any, **kwargs: Any
    ) -> Any:
        """The model's own loss with rates drawn as asked, or a task's; a task's metrics are kept for the log."""
        if not isinstance(self.accelerator.unwrap_model(model), Task):
            inputs = inputs | {"time_sampling": self.time_sampling}
        loss, outputs = super().compute_loss(model, inputs, True, *args, **kwargs)
        for name, value in (outputs.get("metrics") or {}).items():
            self.metrics.setdefault(name, []).append(value)
        return (loss, outputs) if return_outputs else loss

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        if getattr(self.model, "in_order", False):
            return SequentialSampler(self.train_dataset)
        return super()._get_train_sampler(*args, **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds the mean of each metric since the last line of the log (of the first process)."""
        means = {name: round(float(np.nanmean(values)), 4) for name, values in self.metrics.items()}
        self.metrics.clear()
        super().log(logs | means, *args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Weights and arguments; the arguments as JSON, which `Trainer` would pickle."""
        super()._save(output_dir, state_dict)
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        (folder / "training_args.bin").unlink(missing_ok=True)
        (folder / "training_args.json").write_text(self.args.to_json_string())

    # FSDP and DeepSpeed shard these states and have formats of their own.

    @property
    def _is_sharded(self) -> bool:
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self._is_sharded:
            return super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            states = {"optimizer": self.optimizer.state_dict(), "scheduler": self.lr_scheduler.state_dict()}
            save_state(states, Path(output_dir) / "optimizer")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self._is_sharded:
            return super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            states = load_state(Path(checkpoint) / "optimizer")
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


def last_checkpoint(output_dir: str | Path, processes: int = 1) -> str | None:
    """The newest complete checkpoint of a run, or None: one that was being written when the run died does not count.

    Args:
        processes: of the run that wrote it; each writes a file of its own.
    """
    folder = Path(output_dir)
    needed = ["trainer_state.json", *(f"random_{i}.safetensors" for i in range(processes))]
    while folder.is_dir() and (found := get_last_checkpoint(str(folder))):
        if all((Path(found) / name).is_file() for name in needed):
            return found
        Path(found).rename(folder / f"incomplete-{Path(found).name}")
    return None


__all__ = ["DiffusionTrainer", "last_checkpoint"]
