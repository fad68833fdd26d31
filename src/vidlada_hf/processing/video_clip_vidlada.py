"""What every opened video has in common: how its frames are read, and how it fails."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from transformers.video_utils import VideoMetadata

REENCODE = "check that it plays, or re-encode it (`ffmpeg -i IN -c:v libx264 OUT.mp4`)"


class VideoReadingError(ValueError):
    """A video cannot be read. The message names the source and the remedy; `__cause__` is the original error."""


class Clip(Protocol):
    """An opened video."""

    metadata: VideoMetadata

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Frames at `indices`, uint8 RGB (len(indices), height, width, 3)."""

    def close(self) -> None:
        """Frees what the clip holds."""


def checked_indices(indices: Sequence[int], total: int) -> list[int]:
    """The indices of the frames to read, at least one and each in 0..total-1; anything else raises."""
    wrong = [index for index in indices if not 0 <= index < total]
    if wrong or not len(indices):
        problem = f"frame {wrong[0]} was asked for" if wrong else "no frame was asked for"
        raise VideoReadingError(f"{problem}, and it has {total} frames. Choose indices from 0 to {total - 1}")
    return list(indices)


def mixed_sizes(expected: tuple[int, ...], got: tuple[int, ...], index: int) -> VideoReadingError:
    """The error for frame `index`, whose shape (height, width, channels) is not the first one's."""
    return VideoReadingError(
        f"its frames differ in size: {expected[1]}x{expected[0]} (width x height) first, but {got[1]}x{got[0]} at frame"
        f" {index}. Resize them to one size"
    )
