"""What every opened video has in common: how its frames are read, and how it fails."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from transformers.video_utils import VideoMetadata

REENCODE = "check that it plays, or re-encode it (`ffmpeg -i IN -c:v libx264 OUT.mp4`)"


class VideoReadingError(ValueError):
    """A video cannot be read. The message names the source and the remedy; `__cause__` is the original error."""


@dataclass
class ClipMetadata(VideoMetadata):
    """What is known of a video, with the times at which its frames are really shown.

    Attributes:
        frame_times: seconds from the first frame, one for each of `frames_indices`; while frames are being chosen, one
            for each frame of the video. None where the source has no clock.
    """

    frame_times: Any = None

    @property
    def timestamps(self) -> list[float]:
        """When the sampled frames are shown, in seconds from the first frame; else what their frame rate says."""
        if self.frame_times is None or self.frames_indices is None or len(self.frame_times) != len(self.frames_indices):
            return super().timestamps
        return [float(time) for time in self.frame_times]


class Clip(Protocol):
    """An opened video."""

    metadata: ClipMetadata

    def frames(
        self, indices: Sequence[int], size: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, Callable[[], np.ndarray]]]:
        """The frames at `indices` (distinct, ascending), one after the other.

        Args:
            indices: of frames that exist.
            size: (width, height) to which the source may resize a frame, where it can do so more cheaply than Pillow.

        Yields:
            An index, and a function that gives its frame as uint8 RGB (height, width, 3). It is called once, perhaps in
            another thread.
        """

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
