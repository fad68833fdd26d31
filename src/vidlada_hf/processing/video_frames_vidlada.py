"""Videos that are decoded already: an array, a list of frames, a folder of images. They have no clock."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from .addresses_vidlada import fetch
from .limits_vidlada import DEFAULT_LIMITS, ReadingLimits
from .pictures_vidlada import as_rgb, load_picture
from .video_clip_vidlada import ClipMetadata, VideoReadingError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm"})


class FrameSequence:
    """Frames that are stored one by one: a list, or the images of a folder.

    Args:
        frames: see `load_picture`.
        download: fetches an address that it accepts.
        limits: what a picture may cost.
    """

    def __init__(
        self,
        frames: Sequence[Any],
        download: Callable[[str], BinaryIO] = fetch,
        limits: ReadingLimits = DEFAULT_LIMITS,
    ) -> None:
        if not len(frames):
            raise VideoReadingError("it holds no frame. Pass at least one")
        self._frames, self._download, self._max_pixels = frames, download, limits.max_pixels
        self.metadata = ClipMetadata(total_num_frames=len(frames))

    def frames(
        self, indices: Sequence[int], size: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, Callable[[], np.ndarray]]]:
        """See `Clip`; only the images asked for are opened."""
        for index in indices:
            yield index, partial(load_picture, self._frames[index], self._download, self._max_pixels)

    def close(self) -> None:
        """Nothing is held."""


class FrameArray:
    """Frames in one array or tensor of four dimensions."""

    def __init__(self, frames: np.ndarray | torch.Tensor) -> None:
        if frames.ndim != 4:
            raise VideoReadingError(
                f"an array of {frames.ndim} dimensions is not a video. Pass (frames, height, width, 3) or"
                " (frames, 3, height, width)"
            )
        if not len(frames):
            raise VideoReadingError("it holds no frame. Pass at least one")
        self._frames = frames
        self.metadata = ClipMetadata(total_num_frames=len(frames))

    def frames(
        self, indices: Sequence[int], size: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, Callable[[], np.ndarray]]]:
        """See `Clip`."""
        for index in indices:
            yield index, partial(as_rgb, self._frames[index])

    def close(self) -> None:
        """Nothing is held."""


def list_frame_images(folder: Path, max_entries: int = DEFAULT_LIMITS.max_folder_entries) -> list[Path]:
    """The images of a folder in natural order, hidden files left aside."""
    images = []
    for count, file in enumerate(folder.iterdir(), 1):
        if count > max_entries:
            raise VideoReadingError(
                f"the folder has more than {max_entries} entries. Move the frames into one of their own, or raise"
                " `max_folder_entries`"
            )
        if file.suffix.lower() in IMAGE_SUFFIXES and file.name[0] != ".":
            images.append(file)
    if not images:
        raise VideoReadingError(
            f"the folder holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}). Pass a video file, or a folder of frames"
        )
    return sorted(images, key=lambda file: [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", file.name)])
