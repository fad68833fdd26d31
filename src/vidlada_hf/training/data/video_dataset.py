"""Videos of records, read when they are needed: by the data loader's workers, ahead of the training.

`dataloader_num_workers` and `dataloader_prefetch_factor` of `TrainingArguments` say how many workers and how far ahead.
"""

import contextlib
import copy
import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.utils.data import Dataset

from ...processing.addresses_vidlada import is_address, protocol_of
from ...processing.containers_vidlada import open_container
from ...processing.video_clip_vidlada import ClipMetadata
from ...processing.video_reading_vidlada import VideoReadingError
from .collator import RecordError, TooLongError
from .records import Records, with_progress

Handling = Literal["skip", "stop"]  # of records that cannot be used
# Options of the video processor that decide which frames are read, and of what size; and what may be fetched.
FRAME_OPTIONS = (
    *("num_frames", "fps", "max_frames", "force_sample", "sample_by", "resize"),
    *("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_convert_rgb"),
)
ADDRESS_OPTIONS = ("allow_urls", "allow_private_urls")
MAX_ATTEMPTS = 100  # records in a row that cannot be used
SKIPPED_FILE = "skipped.jsonl"  # in a stage's folder

logger = logging.getLogger(__name__)


def with_frame_options(processor: Any, options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A processor that fetches, samples and resizes as `options` say unless a call says otherwise, and other options.

    Frames that it has read it leaves as they are.
    """
    names = (*FRAME_OPTIONS, *ADDRESS_OPTIONS)
    chosen = {name: value for name, value in options.items() if name in names}
    changed, videos = copy.copy(processor), processor.video_processor
    changed.video_processor = type(videos).from_dict(videos.to_dict(), **chosen)
    return changed, {name: value for name, value in options.items() if name not in names}


class FrameReader:
    """The frames of a video file as a model's video processor samples and resizes them.

    Args:
        video_processor: a `VidLaDAVideoProcessor`, whose own settings say which frames.
        cache: a folder that keeps what was read, a safetensors file a video: 28 MB for 64 frames of 384 x 384. A file
            is read again when its path, size or time of change is another, or a setting that its frames depend on. None
            keeps nothing. Several runs and processes may share a folder.

    A call takes the path of a file (or what else `read_video` takes, which is not kept) and returns uint8 frames
    (frames, 3, height, width) and their metadata.

    Raises:
        VideoReadingError: it cannot be read.
    """

    def __init__(self, video_processor: Any, cache: str | Path | None = None) -> None:
        self.video_processor, self.cache = video_processor, None if cache is None else Path(cache)
        settings = {name: getattr(video_processor, name, None) for name in FRAME_OPTIONS}
        self.settings = json.dumps(settings, sort_keys=True, default=str)

    def __call__(self, source: str) -> tuple[torch.Tensor, ClipMetadata]:
        if self.cache is None or not os.path.isfile(source):
            return self._read(source)
        cached = self.cache / f"{self._key(source)}.safetensors"
        not_there_or_damaged = contextlib.suppress(FileNotFoundError, SafetensorError)
        with not_there_or_damaged, safe_open(cached, framework="pt") as file:
            return file.get_tensor("frames"), ClipMetadata(**json.loads(file.metadata()["video"]))
        frames, metadata = self._read(source)
        self._store(cached, frames, metadata)
        return frames, metadata

    def _read(self, source: str) -> tuple[torch.Tensor, ClipMetadata]:
        # Rescaled and normalized they would take four times the room.
        read = self.video_processor(source, do_rescale=False, do_normalize=False, return_metadata=True)
        return read["pixel_values_videos"], read["video_metadata"][0]

    def _key(self, source: str) -> str:
        stat = os.stat(source)
        identity = (os.path.abspath(source), stat.st_size, stat.st_mtime_ns, self.settings)
        return hashlib.sha256(repr(identity).encode()).hexdigest()

    @staticmethod
    def _store(file: Path, frames: torch.Tensor, metadata: ClipMetadata) -> None:
        """Writes a file that appears whole or not at all: other workers may want it."""
        plain = asdict(metadata)
        plain["frames_indices"] = [int(index) for index in metadata.frames_indices or ()]
        unfinished = file.with_name(f".{file.stem}.{os.getpid()}")
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({"frames": frames.contiguous()}, unfinished, {"video": json.dumps(plain, default=float)})
        os.replace(unfinished, file)


class VideoRecords(Dataset):
    """Records as examples of a batch: with their videos' frames, encoded.

    Args:
        records: conversations of one video each.
        reader: reads it.
        encode: makes an example of a record with frames in place of a path, and with a third key "processor_kwargs":
            what the processor must know of frames that were sampled before. See `DiffusionCollator.encode`.
        bad_videos: "skip" takes another record in place of one whose video cannot be read, drawn by its index, so that
            all batches stay full, and lists it in `skipped_file`; "stop" raises.
        too_long: the same for records that `encode` refuses as too long.
        skipped_file: gets a JSON line for each record that is skipped; all workers and processes write to it.
        tokens_per_frame: of the model, which `lengths` counts.

    Raises:
        RecordError: a record that cannot be used ("stop"), or `MAX_ATTEMPTS` in a row.
    """

    in_order = False

    def __init__(
        self,
        records: Records,
        reader: FrameReader,
        encode: Callable[[dict[str, Any]], dict[str, Any]],
        bad_videos: Handling = "skip",
        too_long: Handling = "stop",
        skipped_file: Path | None = None,
        tokens_per_frame: int = 0,
    ) -> None:
        self.records, self.reader, self.encode = records, reader, encode
        self.bad_videos, self.too_long, self.skipped_file = bad_videos, too_long, skipped_file
        self.tokens_per_frame = tokens_per_frame
        self.unusable: dict[int, str] = {}  # why, by index: of this worker

    @cached_property
    def lengths(self) -> list[int]:
        """About how many tokens each takes, for batches of similar lengths: one for four characters, and the frames'.

        Where a frame rate samples, their number depends on how long a video plays, and the heads of all files are read.
        """
        tokens, sampling = self.records.characters // 4, self.reader.video_processor
        if not self.tokens_per_frame or not sampling.fps or sampling.num_frames or sampling.force_sample:
            return tokens.tolist()  # all have about as many frames
        seconds = np.array([seconds_of(video) for video in with_progress(self.records.videos, "videos' lengths")])
        frames = np.minimum(np.ceil(sampling.fps * seconds), sampling.max_frames or np.inf)
        return (tokens + self.tokens_per_frame * frames.astype(np.int64)).tolist()

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"There is no record {index} of {len(self)}.")  # also what ends `for record in records`
        for attempt in range(MAX_ATTEMPTS):
            # Not the next one: behind a whole folder of bad videos a single record would stand in for all of them.
            drawn = int(np.random.default_rng((index, attempt)).integers(len(self))) if attempt else index
            if drawn not in self.unusable:
                record = self.records[drawn]
                try:
                    return self.encode(self._with_frames(record))
                except (VideoReadingError, TooLongError) as error:
                    self.unusable[drawn] = self._skip(record["origin"], error)
        raise RecordError(
            f"{MAX_ATTEMPTS} records in a row cannot be used, the last one is {self.unusable[drawn]} Is "
            "`video_folder` right, and are there not too many frames? The first of the run are listed in "
            f"{self.skipped_file}."
        )

    def _with_frames(self, record: dict[str, Any]) -> dict[str, Any]:
        messages, read = [], {}
        for message in record["messages"]:
            parts = []
            for part in message["content"]:
                if part["type"] == "video":
                    frames, metadata = self.reader(part["video"])
                    read = {"do_sample_frames": False, "video_metadata": [metadata]}
                    part = {"type": "video", "video": frames}
                parts.append(part)
            messages.append(message | {"content": parts})
        return record | {"messages": messages, "processor_kwargs": read}

    def _skip(self, origin: str, error: VideoReadingError | TooLongError) -> str:
        """Lists a record as skipped, and says why it cannot be used; or raises that, where it stops the run."""
        if isinstance(error, TooLongError):
            if self.too_long == "stop":
                raise TooLongError(f"{error} (`too_long: skip` does that.)") from error
            reason, message = "too long", str(error)
        else:
            if self.bad_videos == "stop":
                raise RecordError(f"{origin}: {error} (`bad_videos: skip` leaves it out.)") from error
            reason, message = "bad video", f"{origin}: {error}"
        if self.skipped_file is None:
            logger.warning("%s is skipped: %s", origin, error)
        else:
            line = json.dumps({"origin": origin, "reason": reason, "error": str(error)}) + "\n"
            with self.skipped_file.open("a", encoding="utf-8") as file:  # short writes of workers do not mix
                file.write(line)
        return message


def check_addresses(records: Records, allow_urls: bool) -> None:
    """Raises a RecordError for the first record whose video is an address, unless addresses may be fetched."""
    videos = records.videos
    address = next((video for video in videos if is_address(video)), None)
    if address is not None and not allow_urls:
        origin = records[videos.index(address)]["origin"]
        raise RecordError(
            f"{origin}: the video {address} is an address, and data fetch nothing by themselves. Set"
            " `processor_options: {allow_urls: true}`, or download the file and name its path."
        )


def check_files(records: Records) -> None:
    """Raises a RecordError for the first record whose video's file is not there."""
    videos = records.videos
    for video in dict.fromkeys(videos):
        if not protocol_of(video) and not os.path.exists(video):
            origin = records[videos.index(video)]["origin"]
            raise RecordError(
                f"{origin}: there is no video {video}. Is `video_folder` right? (`bad_videos: skip` leaves it out.)"
            )


def seconds_of(video: str) -> float:
    """How long a video plays, by the head of its file; 0 where that does not tell or cannot be read."""
    if not os.path.isfile(video):  # an address, a folder of frames, a pipe
        return 0.0
    try:
        with open_container(video) as container:
            return (container.duration or 0) / av.time_base
    except (VideoReadingError, av.FFmpegError, OSError):
        return 0.0


def count_skipped(file: Path) -> Counter[str]:
    """How many different records a file of skipped ones lists for which reason; each is listed again in every epoch."""
    reasons = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
        with contextlib.suppress(ValueError):  # the last line of a run that was killed
            skipped = json.loads(line)
            reasons[skipped["origin"]] = skipped["reason"]
    return Counter(reasons.values())


__all__ = [
    "FrameReader",
    "Handling",
    "VideoRecords",
    "check_addresses",
    "check_files",
    "count_skipped",
    "with_frame_options",
]
