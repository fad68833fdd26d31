"""Frames of a video from wherever it is: a file, an address, bytes, a folder of images, an array, a list of frames."""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlparse
from urllib.request import url2pathname

import av
import numpy as np
import torch

from .frame_reading_vidlada import read_frames
from .video_clip_vidlada import REENCODE, Clip, ClipMetadata, VideoReadingError
from .video_file_vidlada import VideoFile
from .video_frames_vidlada import FrameArray, FrameSequence, list_frame_images


def read_video(
    source: Any,
    choose_frames: Callable[[ClipMetadata], Sequence[int]],
    *,
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
    size: tuple[int, int] | None = None,
) -> tuple[np.ndarray, ClipMetadata]:
    """Reads the frames of `source` that `choose_frames` asks for.

    Args:
        source: one video, as one of
            - the path (`str`, `Path`, `file://`) or `http(s)://` address of a video file;
            - the content of one: `bytes`, or a file object opened in binary mode (read from its start, left open);
            - the path of a folder of frame images, taken in natural order (`2.png` before `10.png`);
            - an array or tensor (frames, height, width, channels) or (frames, channels, height, width), with 1, 3 or 4
              channels (alpha is dropped), of integers 0..255 or floats 0..1. If both readings fit, channels come last;
            - a list of frames: PIL images, arrays or tensors of one frame each, or paths of images.
        choose_frames: gets the metadata (`total_num_frames`; `fps` in Hz and `duration` in seconds, both None where the
            source has no clock; `width`, `height`) and returns indices in 0..total_num_frames-1, in any order,
            repeats allowed. What it raises is passed on untouched.
        transform, size: what is done to each frame as it comes, see `read_frames`.

    Returns:
        frames: uint8 RGB (len(indices), height, width, 3), turned upright as the file's display matrix says; or what
            `transform` makes of them.
        metadata: the same object, with `frames_indices` and the times of these frames set.

    Raises:
        VideoReadingError: for anything that keeps one of the frames from being read.
    """
    name = describe_source(source)
    with _naming(name):
        clip = _open_clip(source)
    with closing(clip):
        indices = [int(index) for index in choose_frames(clip.metadata)]
        with _naming(name):
            frames, native = read_frames(clip, indices, transform, size)
    metadata = clip.metadata
    times = metadata.frame_times
    metadata.frames_indices = indices
    metadata.frame_times = None if times is None else [float(times[index]) for index in indices]
    metadata.height, metadata.width = native
    return frames, metadata


def describe_source(source: Any) -> str:
    """A short name of a video for an error message."""
    if isinstance(source, (str, os.PathLike)):
        return repr(os.fspath(source))
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
    except MemoryError:
        raise
    except VideoReadingError as error:
        raise VideoReadingError(f"Cannot read the video {name}: {error}.") from error.__cause__
    except FileNotFoundError as error:
        raise VideoReadingError(f"Cannot read the video {name}: no such file or folder. Check the path.") from error
    except PermissionError as error:
        raise VideoReadingError(f"Cannot read the video {name}: access is denied. Check its permissions.") from error
    except Exception as error:
        raise VideoReadingError(
            f"Cannot read the video {name}: it is no video that FFmpeg can decode, or it is cut short or damaged"
            f" ({type(error).__name__}: {error}). To mend it, {REENCODE}."
        ) from error


def _open_clip(source: Any) -> Clip:
    if isinstance(source, (str, os.PathLike)):
        return _open_path(os.fspath(source))
    if isinstance(source, (np.ndarray, torch.Tensor)):
        return FrameArray(source)
    if isinstance(source, (list, tuple)):
        return FrameSequence(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return VideoFile(io.BytesIO(_not_empty(bytes(source))))
    if hasattr(source, "read"):
        return VideoFile(_seekable(source))
    raise VideoReadingError(
        f"a {type(source).__name__} is not a video. Pass a path, bytes, a binary file object, an array or a list of"
        " frames"
    )


def _open_path(path: str | bytes) -> Clip:
    path = os.fsdecode(path)
    if path.startswith("file://"):
        path = url2pathname(urlparse(path).path)
    elif "://" in path:
        return _open_address(path)
    if os.path.isdir(path):
        return FrameSequence(list_frame_images(Path(path)))
    if os.stat(path).st_size == 0:  # raises FileNotFoundError, which FFmpeg would word less clearly
        _not_empty(b"")
    # The explicit protocol keeps a colon in a file's name from being taken for one.
    return VideoFile(f"file:{path}")


def _open_address(address: str) -> Clip:
    try:
        return VideoFile(address)
    except av.FFmpegError as error:
        raise VideoReadingError(
            f"it cannot be fetched, or is no video ({type(error).__name__}). Check the address and the connection, or"
            " download the file and pass its path"
        ) from error


def _seekable(file: Any) -> BinaryIO:
    """The file itself, or its content if it cannot seek (a pipe, a response)."""
    if hasattr(file, "seek") and (not hasattr(file, "seekable") or file.seekable()):
        file.seek(0)
        probe = file.read(1)
    else:
        probe = file.read()
        file = io.BytesIO(probe) if isinstance(probe, bytes) else file
    if isinstance(probe, str):
        raise VideoReadingError("the file object is in text mode. Open it with mode 'rb'")
    _not_empty(probe)
    return file


def _not_empty(content: bytes) -> bytes:
    if not content:
        raise VideoReadingError("it is empty. The download or the recording may have failed: fetch it again")
    return content


__all__ = ["VideoReadingError", "describe_source", "read_video"]
