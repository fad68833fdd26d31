"""The task of every stage that says no other: conversations about videos, under the model's own objective."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch.utils.data import Dataset

from ..modeling.objective_vidlada import TimeSampling
from .collator import DiffusionCollator, find_options
from .data import build_dataset
from .tasks import Task


class Conversations(Task):
    """Masked diffusion on the answers.

    Args:
        data: `source` and the options of that source, see `data.SOURCES`.
        labels: a preset's name, or fields of `LabelOptions`. Without a `max_length` the model's context is the limit.
        processor_options: of a call of the processor: `num_frames`, `fps`, ...
        time_sampling: how masking rates are drawn, see `draw_probabilities`.
    """

    in_order = True

    def __init__(
        self,
        model: Any,
        processor: Any,
        seed: int = 0,
        *,
        data: Mapping[str, Any],
        labels: str | Mapping[str, Any] = "answers",
        processor_options: Mapping[str, Any] | None = None,
        time_sampling: TimeSampling = "stratified",
    ) -> None:
        super().__init__(model, processor, seed)
        options = find_options(labels)
        if options.max_length is None:
            options = replace(options, max_length=model.config.text_config.max_position_embeddings)
        self.collator = DiffusionCollator(processor, options, **(processor_options or {}))
        self.data, self.time_sampling = dict(data), time_sampling

    def dataset(self) -> Dataset:
        """Items `{"messages": [...]}`."""
        return build_dataset(seed=self.seed, **self.data)

    def collate(self, examples: list[Any]) -> dict[str, Any]:
        """See `DiffusionCollator`."""
        return self.collator(examples)

    def forward(self, **batch: Any) -> dict[str, Any]:
        """The model's own loss."""
        return {"loss": self.model(**batch, time_sampling=self.time_sampling).loss}


__all__ = ["Conversations"]
