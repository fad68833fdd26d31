"""Videos that are decoded already: an array, a list of frames, a folder of images. They have no clock."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.image_utils import load_image

from .video_clip_vidlada import ClipMetadata, VideoReadingError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm"})


class FrameSequence:
    """Frames that are stored one by one: a list, or the images of a folder."""

    def __init__(self, frames: Sequence[Any]) -> None:
        if not len(frames):
            raise VideoReadingError("it holds no frame. Pass at least one")
        self._frames = frames
        self.metadata = ClipMetadata(total_num_frames=len(frames))

    def frames(
        self, indices: Sequence[int], size: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, Callable[[], np.ndarray]]]:
        """See `Clip`; only the images asked for are opened."""
        for index in indices:
            yield index, partial(_load_frame, self._frames[index])

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
            yield index, partial(self._frame, index)

    def _frame(self, index: int) -> np.ndarray:
        return _as_rgb(self._frames[[index]])[0]

    def close(self) -> None:
        """Nothing is held."""


def list_frame_images(folder: Path) -> list[Path]:
    """The images of a folder in natural order, hidden files left aside."""
    images = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.name[0] != "."]
    if not images:
        raise VideoReadingError(
            f"the folder holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}). Pass a video file, or a folder of frames"
        )
    return sorted(images, key=lambda file: [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", file.name)])


def _load_frame(frame: Any) -> np.ndarray:
    """One frame (PIL image, array, tensor, path or address) as uint8 RGB (height, width, 3)."""
    if isinstance(frame, (np.ndarray, torch.Tensor)):
        if frame.ndim not in (2, 3):
            raise VideoReadingError(f"a frame of shape {tuple(frame.shape)} is no image. Pass (height, width, 3)")
        return _as_rgb(frame[..., None] if frame.ndim == 2 else frame)
    try:
        image = load_image(os.fspath(frame) if isinstance(frame, os.PathLike) else frame)
        return np.asarray(image.convert("RGB"))
    except Exception as error:
        raise VideoReadingError(
            f"its frame {str(frame)[:200]!r} is no image that Pillow can open. Replace it or leave it out"
        ) from error


def _as_rgb(frames: np.ndarray | torch.Tensor) -> np.ndarray:
    """Images (..., height, width, channels) or (..., channels, height, width) as uint8 RGB (..., height, width, 3)."""
    if isinstance(frames, torch.Tensor):
        frames = frames.detach().cpu()
        frames = (frames.float() if frames.is_floating_point() else frames).numpy()
    if frames.shape[-1] not in (1, 3, 4):
        if frames.shape[-3] not in (1, 3, 4):
            raise VideoReadingError(f"no dimension of {frames.shape} holds 1, 3 or 4 channels. Pass RGB frames")
        frames = np.moveaxis(frames, -3, -1)
    frames = _as_bytes(frames[..., :3])
    return np.repeat(frames, 3, axis=-1) if frames.shape[-1] == 1 else frames


def _as_bytes(values: np.ndarray) -> np.ndarray:
    """Integers 0..255, or floats 0..1, as uint8 0..255. Anything else raises, since its scale would be a guess."""
    if values.dtype == np.uint8 or values.size == 0:
        return values
    low, high = values.min(), values.max()
    if np.issubdtype(values.dtype, np.floating) and low >= 0 and high <= 1:
        return np.rint(values * 255).astype(np.uint8)
    if np.issubdtype(values.dtype, np.integer) and low >= 0 and high <= 255:
        return values.astype(np.uint8)
    raise VideoReadingError(f"its values are {values.dtype} from {low} to {high}. Pass uint8 0..255, or floats 0..1")
