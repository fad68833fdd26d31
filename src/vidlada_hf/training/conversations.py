"""The task of every stage that says no other: conversations about videos, under the model's own objective."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from torch.utils.data import Dataset

from ..modeling.objective_vidlada import TimeSampling
from .collator import DiffusionCollator, find_options
from .data import build_dataset, check_source
from .records import Records
from .tasks import Task
from .videos import BadVideos, FrameReader, VideoRecords, count_bad, with_sampling


class Conversations(Task):
    """Masked diffusion on the answers.

    Args:
        data: `source` and the options of that source, see `data.SOURCES`.
        labels: a preset's name, or fields of `LabelOptions`. Without a `max_length` the model's context is the limit.
        processor_options: of a call of the processor: `num_frames`, `fps`, ...
        time_sampling: how masking rates are drawn, see `draw_probabilities`.
        bad_videos: "skip" or "stop", see `VideoRecords`.
        frame_cache: a folder that keeps the frames read from files, see `FrameReader`.
    """

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
        bad_videos: BadVideos = "skip",
        frame_cache: str | None = None,
    ) -> None:
        sampling, others = with_sampling(processor, processor_options or {})
        super().__init__(model, sampling, seed)
        options = find_options(labels)
        self.is_limited = options.max_length is not None  # by the recipe itself
        if options.max_length is None:
            options = replace(options, max_length=model.config.text_config.max_position_embeddings)
        self.collator = DiffusionCollator(sampling, options, **others)
        self.data, self.time_sampling = dict(data), time_sampling
        self.bad_videos, self.frame_cache = bad_videos, frame_cache

    @classmethod
    def check(cls, options: dict[str, Any]) -> None:
        """Raises for unknown options, and for labels or data that are not there."""
        super().check(options)
        find_options(options.get("labels", "answers"))
        for name, known in (("time_sampling", get_args(TimeSampling)), ("bad_videos", get_args(BadVideos))):
            if options.get(name, known[0]) not in known:
                raise ValueError(f"`{name}` must be one of {', '.join(map(repr, known))}, got {options[name]!r}.")
        if not isinstance(options["data"], Mapping) or "source" not in options["data"]:
            raise ValueError("`options` of the task 'conversations' need `data` with a `source`.")
        check_source(**options["data"])

    def dataset(self) -> Dataset:
        """Items `{"messages": [...]}`; those of files with frames that were read."""
        conversations = build_dataset(seed=self.seed, **self.data)
        if not isinstance(conversations, Records):
            return conversations
        reader = FrameReader(self.processor.video_processor, self.frame_cache)
        return VideoRecords(conversations, reader, self.bad_videos, self.notes)

    @property
    def notes(self) -> Path | None:
        """The file of the bad videos that were met."""
        return None if self.folder is None else self.folder / "bad_videos.jsonl"

    def remarks(self) -> list[str]:
        """How many videos were bad."""
        count = count_bad(self.notes) if self.notes else 0
        return [f"{count} records were left out, since their videos cannot be read: see {self.notes}."] if count else []

    def collate(self, examples: list[Any]) -> dict[str, Any]:
        """See `DiffusionCollator`."""
        return self.collator(examples)

    def forward(self, **batch: Any) -> dict[str, Any]:
        """The model's own loss."""
        return {"loss": self.model(**batch, time_sampling=self.time_sampling).loss}


__all__ = ["Conversations"]
