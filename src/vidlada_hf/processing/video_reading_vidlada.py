"""Frames of a video from wherever it is: a file, an address, bytes, a folder of images, an array, a list of frames."""

import io
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import torch

from .addresses_vidlada import fetch, protocol_of
from .animation_vidlada import open_file
from .frame_reading_vidlada import read_frames
from .limits_vidlada import DEFAULT_LIMITS, ReadingLimits
from .pictures_vidlada import path_of_file_address, require_regular_file
from .video_clip_vidlada import REENCODE, Clip, ClipMetadata, VideoReadingError
from .video_frames_vidlada import FrameArray, FrameSequence, list_frame_images

# What FFmpeg may know of a name. By others, such as a picture's, it would take a file for one of a numbered sequence.
VIDEO_SUFFIXES = frozenset({
    *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg"),
    *(".vob", ".flv", ".wmv", ".asf", ".ogv", ".ogg", ".mxf", ".h264", ".264", ".hevc", ".h265", ".265", ".avif"),
})  # fmt: skip


def read_video(
    source: Any,
    choose_frames: Callable[[ClipMetadata], Sequence[int]],
    *,
    allow_urls: bool = False,
    allow_private_urls: bool = False,
    limits: ReadingLimits = DEFAULT_LIMITS,
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
    size: tuple[int, int] | None = None,
) -> tuple[np.ndarray, ClipMetadata]:
    """Reads the frames of `source` that `choose_frames` asks for. Nothing but the source is opened.

    Args:
        source: one video, as one of
            - the path (`str`, `Path`, `file://`) of a video file;
            - the content of one: `bytes`, a file object opened in binary mode (read from its start, left open), or a
              row `{"bytes", "path"}` of `datasets`;
            - the path of a folder of frame images, taken in natural order (`2.png` before `10.png`);
            - an array or tensor (frames, height, width, channels) or (frames, channels, height, width), with 1, 3 or 4
              channels (alpha is dropped), of integers 0..255, uint16 0..65535 or floats 0..1. If both readings fit,
              channels come last;
            - a list of frames: PIL images, arrays or tensors of one frame each, or paths of images;
            - the http(s) address of a video file, or addresses of images in such a list: an `AllowedAddress`, or a
              text if `allow_urls`. It is downloaded first.
        choose_frames: gets the metadata (`total_num_frames`; `fps` in Hz and `duration` in seconds, both None where the
            source has no clock; `width`, `height`) and returns indices in 0..total_num_frames-1, in any order,
            repeats allowed. What it raises is passed on untouched.
        allow_urls: fetch texts that look like an address.
        allow_private_urls: fetch from this machine and its own network too.
        limits: what the video may cost.
        transform: changes each frame as it comes, see `read_frames`.
        size: see `read_frames`.

    Returns:
        frames: uint8 RGB (len(indices), height, width, 3), turned upright as the file's display matrix says; or what
            `transform` makes of them.
        metadata: the same object, with `frames_indices` and the times of these frames set; `height` and `width` are
            those before `transform`.

    Raises:
        VideoReadingError: for anything that keeps one of the frames from being read.
    """
    name = describe_source(source)
    with ExitStack() as opened:
        download = partial(
            fetch,
            allow_urls=allow_urls,
            allow_private=allow_private_urls,
            max_bytes=limits.max_download_bytes,
            max_seconds=limits.max_download_seconds,
        )
        with _naming(name):
            clip = opened.enter_context(closing(_Opener(limits, download, opened).open(source)))
        indices = [int(index) for index in choose_frames(clip.metadata)]
        with _naming(name):
            frames, (height, width) = read_frames(clip, indices, transform, size)
    metadata = clip.metadata
    times = metadata.frame_times
    metadata.frames_indices = indices
    metadata.frame_times = None if times is None else [float(times[index]) for index in indices]
    metadata.height, metadata.width = height, width
    return frames, metadata


def describe_source(source: Any) -> str:
    """A short name of a video for an error message."""
    if isinstance(source, Mapping):
        content = source.get("bytes")
        source = source.get("path") or content or source
    if isinstance(source, (str, os.PathLike)):
        text = repr(os.fspath(source))
        return text if len(text) <= 250 else f"{text[:100]}...{text[-20:]}"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{len(source)} bytes>"
    if isinstance(source, (np.ndarray, torch.Tensor)):
        return f"<array of shape {tuple(source.shape)}>"
    if isinstance(source, (list, tuple)):
        return f"<list of {len(source)} frames>"
    return repr(getattr(source, "name", None) or f"<{type(source).__name__}>")


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Turns whatever goes wrong into one `VideoReadingError` that starts with the source's name."""
    try:
        yield
    except MemoryError as error:
        if not isinstance(error, av.FFmpegError):
            raise
        raise VideoReadingError(  # FFmpeg's: of this size only a damaged header speaks
            f"Cannot read the video {name}: its header asks for more memory than there can be, so it is damaged. Fetch"
            " it again."
        ) from error
    except VideoReadingError as error:
        raise VideoReadingError(f"Cannot read the video {name}: {error}.") from error.__cause__
    except FileNotFoundError as error:
        raise VideoReadingError(f"Cannot read the video {name}: no such file or folder. Check the path.") from error
    except PermissionError as error:
        raise VideoReadingError(f"Cannot read the video {name}: access is denied. Check its permissions.") from error
    except Exception as error:
        raise VideoReadingError(
            f"Cannot read the video {name}: it is no video that FFmpeg can decode, or it is cut short or damaged"
            f" ({type(error).__name__}: {str(error)[:200]}). To mend it, {REENCODE}."
        ) from error


@dataclass
class _Opener:
    """Opens a source.

    Args:
        limits: what the video may cost.
        download: fetches an address that it accepts.
        opened: closes what was opened on the way.
    """

    limits: ReadingLimits
    download: Callable[[str], BinaryIO]
    opened: ExitStack

    def open(self, source: Any) -> Clip:
        if isinstance(source, (str, os.PathLike)):
            return self._open_name(source if isinstance(source, str) else os.fsdecode(source))
        if isinstance(source, (np.ndarray, torch.Tensor)):
            return FrameArray(source)
        if isinstance(source, (list, tuple)):
            return FrameSequence(source, self.download, self.limits)
        if isinstance(source, (bytes, bytearray, memoryview)):
            return self._open_file(io.BytesIO(source))
        if isinstance(source, Mapping) and source.keys() <= {"bytes", "path"} and set(source.values()) - {None}:
            return self.open(source["path"] if source.get("bytes") is None else source["bytes"])
        if hasattr(source, "read"):
            return self._open_file(self._seekable(source))
        raise VideoReadingError(
            f"a {type(source).__name__} is not a video. Pass a path, bytes, a binary file object, an array or a list of"
            " frames"
        )

    def _open_name(self, name: str) -> Clip:
        protocol = protocol_of(name)
        if protocol == "file":
            name = path_of_file_address(name)
        elif protocol:
            return self._open_file(self.opened.enter_context(closing(self.download(name))))
        if os.path.isdir(name):
            folder = list_frame_images(Path(name), self.limits.max_folder_entries)
            return FrameSequence(folder, self.download, self.limits)
        if require_regular_file(name) == 0:  # raises FileNotFoundError, which FFmpeg would word less clearly
            raise _is_empty()
        if os.path.splitext(name)[1].lower() not in VIDEO_SUFFIXES:
            return self._open_file(self.opened.enter_context(open(name, "rb")))
        return open_file(name, self.limits)

    def _open_file(self, file: BinaryIO) -> Clip:
        file.seek(0)
        start = "" if isinstance(file, io.TextIOBase) else file.read(1)
        if isinstance(start, str):
            raise _is_text()
        if not start:
            raise _is_empty()
        return open_file(file, self.limits)

    def _seekable(self, file: Any) -> BinaryIO:
        """The file itself, or its content in a temporary file if it cannot seek (a pipe, a response)."""
        if hasattr(file, "seek") and (not hasattr(file, "seekable") or file.seekable()):
            return file
        copy: Any = tempfile.TemporaryFile(prefix="vidlada_")  # noqa: SIM115  # `opened` closes it
        self.opened.enter_context(copy)
        size = 0
        while piece := file.read(1 << 18):
            if isinstance(piece, str):
                raise _is_text()
            size += copy.write(piece)
            if size > self.limits.max_download_bytes:
                raise VideoReadingError(
                    f"it gives more than {self.limits.max_download_bytes} bytes, the limit of a download. Raise"
                    " `max_download_bytes`, or copy it into a file"
                )
        return copy


def _is_empty() -> VideoReadingError:
    return VideoReadingError("it is empty. The download or the recording may have failed: fetch it again")


def _is_text() -> VideoReadingError:
    return VideoReadingError("the file object is in text mode. Open it with mode 'rb'")


__all__ = ["VIDEO_SUFFIXES", "VideoReadingError", "describe_source", "read_video"]
