"""The task of every stage that names no other: conversations about videos, under the model's own objective."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from torch.utils.data import Dataset

from ..modeling.objective_vidlada import TimeSampling
from ..processing.processing_vidlada import PROMPT_OPTIONS
from ..processing.video_processing_vidlada import VidLaDAVideoProcessorKwargs
from .data.collator import DiffusionCollator, resolve_labels
from .data.records import Records
from .data.sources import build_dataset
from .data.video_dataset import (
    SKIPPED_FILE,
    FrameReader,
    Handling,
    VideoRecords,
    check_addresses,
    check_files,
    count_skipped,
    with_frame_options,
)
from .global_batch import Average
from .schema import refuse_unknown
from .task import Task


@dataclass(frozen=True)
class ConversationOptions:
    """Options of `ConversationTask`.

    Args:
        data: `source` and the options of that source, see `data.sources.SOURCES`.
        labels: a preset's name, or fields of `LabelOptions`. Without a `max_length` the model's context is the limit.
        processor_options: of a call of the processor: `num_frames`, `fps`, ...; `allow_urls`, without which no address
            of the data is fetched.
        time_sampling: how masking rates are drawn, see `draw_mask_probabilities`.
        average: whether the loss is a mean over the "examples" of the global batch, each divided by the length of its
            own answer (the official rule), or over all its answer "tokens", so that long answers weigh more.
        bad_videos, too_long: "skip" or "stop", what becomes of records that cannot be used, see `VideoRecords`.
        frame_cache: a folder that keeps the frames read from files, see `FrameReader`.
    """

    data: Mapping[str, Any]
    labels: str | Mapping[str, Any] = "answers"
    processor_options: Mapping[str, Any] | None = None
    time_sampling: TimeSampling = "stratified"
    average: Average = "examples"
    bad_videos: Handling = "skip"
    too_long: Handling = "stop"
    frame_cache: str | None = None


class ConversationTask(Task):
    """Masked diffusion on the answers.

    Args:
        model, processor, seed: as of `Task`.
        options: fields of `ConversationOptions`.

    Attributes:
        has_max_length: whether the options say how long a sequence may be.
    """

    Options = ConversationOptions

    def __init__(self, model: Any, processor: Any, seed: int = 0, **options: Any) -> None:
        self.options = ConversationOptions(**options)
        sampling, others = with_frame_options(processor, self.options.processor_options or {})
        super().__init__(model, sampling, seed)
        labels = resolve_labels(self.options.labels)
        self.has_max_length = labels.max_length is not None
        context = model.config.text_config.max_position_embeddings
        if labels.max_length is None:
            labels = replace(labels, max_length=context)
        elif labels.max_length > context:
            raise ValueError(f"`max_length` is {labels.max_length}, and the model's context {context}: lower it.")
        self.collator = DiffusionCollator(sampling, labels, **others)
        self.time_sampling, self.average = self.options.time_sampling, self.options.average

    @classmethod
    def check(cls, options: dict[str, Any], seed: int = 0) -> str:
        """Raises for unknown options, and for mistakes in the data: all records are read once, their videos are not.

        Returns:
            The records' fingerprint; "" for a source that makes its own.
        """
        super().check(options, seed)
        resolve_labels(options.get("labels", "answers"))
        known = [*PROMPT_OPTIONS, *get_type_hints(VidLaDAVideoProcessorKwargs)]
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
        check_addresses(records, bool((options.get("processor_options") or {}).get("allow_urls")))
        if options.get("bad_videos") == "stop":
            check_files(records)
        return records.fingerprint

    def dataset(self) -> Dataset:
        """Items `{"messages": [...]}`; those of files encoded, see `VideoRecords`."""
        conversations = build_dataset(**({"seed": self.seed} | dict(self.options.data)))
        if not isinstance(conversations, Records):
            return conversations
        videos = self.processor.video_processor
        return VideoRecords(
            conversations,
            FrameReader(videos, self.options.frame_cache),
            self.collator.encode,
            self.options.bad_videos,
            self.options.too_long,
            self.skipped_file,
            self.processor.count_video_tokens(1, videos.size["height"], videos.size["width"]),
        )

    @property
    def skipped_file(self) -> Path | None:
        """The file that lists the records that were skipped; None outside a run."""
        return None if self.folder is None else self.folder / SKIPPED_FILE

    def report(self) -> list[str]:
        """How many records were skipped, and why."""
        file = self.skipped_file
        counts = count_skipped(file) if file else {}
        return [f"{count} records were skipped ({reason}): see {file}." for reason, count in counts.items()]

    def collate(self, examples: list[Any]) -> dict[str, Any]:
        return self.collator(examples)

    def forward(self, **batch: Any) -> dict[str, Any]:
        """The model's own loss."""
        return {"loss": self.model(**batch, time_sampling=self.time_sampling).loss}


__all__ = ["ConversationOptions", "ConversationTask"]
