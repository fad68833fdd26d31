"""The task of every stage that says no other: conversations about videos, under the model's own objective."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

from torch.utils.data import Dataset

from ..modeling.objective_vidlada import TimeSampling
from ..processing.processing_vidlada import PROMPT_OPTIONS
from ..processing.video_processing_vidlada import VidLaDAVideosKwargs
from .data.collator import DiffusionCollator, find_options
from .data.records import Records
from .data.sources import build_dataset
from .data.video_dataset import NOTES, FrameReader, Handling, VideoRecords, check_files, count_left_out, with_reading
from .global_batch import Average
from .schema import refuse_unknown
from .task import Task


class Conversations(Task):
    """Masked diffusion on the answers.

    Args:
        data: `source` and the options of that source, see `data.SOURCES`.
        labels: a preset's name, or fields of `LabelOptions`. Without a `max_length` the model's context is the limit.
        processor_options: of a call of the processor: `num_frames`, `fps`, ...
        time_sampling: how masking rates are drawn, see `draw_probabilities`.
        average: whether the loss is a mean over the "examples" of the global batch, each divided by the length of its
            own answer (the official rule), or over all its answer "tokens", so that long answers weigh more.
        bad_videos, too_long: "skip" or "stop", what becomes of records that cannot be used, see `VideoRecords`.
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
        average: Average = "examples",
        bad_videos: Handling = "skip",
        too_long: Handling = "stop",
        frame_cache: str | None = None,
    ) -> None:
        sampling, others = with_reading(processor, processor_options or {})
        super().__init__(model, sampling, seed)
        options = find_options(labels)
        self.is_limited = options.max_length is not None  # by the recipe itself
        context = model.config.text_config.max_position_embeddings
        if options.max_length is None:
            options = replace(options, max_length=context)
        elif options.max_length > context:
            raise ValueError(f"`max_length` is {options.max_length}, and the model's context {context}: lower it.")
        self.collator = DiffusionCollator(sampling, options, **others)
        self.data, self.time_sampling, self.average = dict(data), time_sampling, average
        self.bad_videos, self.too_long, self.frame_cache = bad_videos, too_long, frame_cache

    @classmethod
    def check(cls, options: dict[str, Any], seed: int = 0) -> str:
        """Raises for unknown options, and for mistakes in the data: all records are read once, their videos are not.

        Returns:
            The records' fingerprint; "" for a source that makes its own.
        """
        super().check(options, seed)
        find_options(options.get("labels", "answers"))
        known = [*PROMPT_OPTIONS, *get_type_hints(VidLaDAVideosKwargs)]
        refuse_unknown(options.get("processor_options") or {}, known, "`processor_options`")
        cache = options.get("frame_cache")
        if cache is not None:
            try:
                os.makedirs(cache, exist_ok=True)
            except OSError as error:
                raise ValueError(f"`frame_cache` must be a folder to write to, {cache} is none: {error}.") from error
        if "source" not in options["data"]:
            raise ValueError("`options` of the task 'conversations' need `data` with a `source`.")
        records = build_dataset(**({"seed": seed} | options["data"]))
        if not isinstance(records, Records):
            if unused := {"bad_videos", "too_long", "frame_cache"} & set(options):
                source = options["data"]["source"]
                raise ValueError(f"{', '.join(sorted(unused))}: for sources of files only, which {source!r} is not.")
            return ""
        if options.get("bad_videos") == "stop":
            check_files(records)
        return records.fingerprint

    def dataset(self) -> Dataset:
        """Items `{"messages": [...]}`; those of files encoded, see `VideoRecords`."""
        conversations = build_dataset(**({"seed": self.seed} | self.data))
        if not isinstance(conversations, Records):
            return conversations
        videos = self.processor.video_processor
        rows = self.processor.count_video_tokens(1, videos.size["height"], videos.size["width"])
        reader = FrameReader(videos, self.frame_cache)
        encode = self.collator.encode
        return VideoRecords(conversations, reader, encode, self.bad_videos, self.too_long, self.notes, rows)

    @property
    def notes(self) -> Path | None:
        """The file of the records that were left out."""
        return None if self.folder is None else self.folder / NOTES

    def remarks(self) -> list[str]:
        """How many records were left out, and why."""
        counts = count_left_out(self.notes) if self.notes else {}
        return [f"{count} records were left out ({reason}): see {self.notes}." for reason, count in counts.items()]

    def collate(self, examples: list[Any]) -> dict[str, Any]:
        """See `DiffusionCollator`."""
        return self.collator(examples)

    def forward(self, **batch: Any) -> dict[str, Any]:
        """The model's own loss."""
        return {"loss": self.model(**batch, time_sampling=self.time_sampling).loss}


__all__ = ["Conversations"]
