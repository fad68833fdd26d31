"""Which frames of a video the model looks at, and when these are shown."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def sample_frame_indices(
    total_frames: int,
    average_fps: float | None = None,
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    max_frames: int | None = None,
    force_sample: bool = False,
) -> np.ndarray:
    """Which frames of a video the model looks at: the official sampling rule.

    Args:
        total_frames: frames of the video.
        average_fps: its frames a second; None if unknown.
        num_frames: sample that many frames evenly, or all if there are fewer. Excludes `fps`.
        fps: sample that many frames a second, that is every `frame_stride(average_fps, fps)`-th. None, or an unknown
            `average_fps`: take every frame.
        max_frames: sample that many evenly when the above gives more. None: no limit.
        force_sample: sample exactly `num_frames` (or else `max_frames`) evenly, even if some must repeat.

    Returns:
        int64 indices in 0..total_frames-1, ascending. "Evenly" is `linspace(0, total_frames - 1, n)` cut to
        integers, so both ends are included.

    Raises:
        ValueError: for a number that is not positive, `fps` together with `num_frames`, or nothing to force.
    """
    check_sampling(num_frames=num_frames, fps=fps, max_frames=max_frames)
    if total_frames <= 0:
        raise ValueError(f"Cannot sample a video of {total_frames} frames: pass one that has at least one frame.")
    if force_sample:
        count = min(n for n in (num_frames, max_frames, np.inf) if n is not None)
        if count == np.inf:
            raise ValueError(
                "`force_sample=True` needs to know how many frames: pass `max_frames` or `num_frames` too."
            )
        return _evenly_spaced(total_frames, int(count))
    if num_frames is not None:
        return _evenly_spaced(total_frames, min(num_frames, max_frames or num_frames, total_frames))
    stride = frame_stride(average_fps, fps)
    if max_frames is not None and -(-total_frames // stride) > max_frames:  # before any array of that length is made
        return _evenly_spaced(total_frames, max_frames)
    return np.arange(0, total_frames, stride, dtype=np.int64)


def _evenly_spaced(total_frames: int, count: int) -> np.ndarray:
    return np.linspace(0, total_frames - 1, count, dtype=np.int64)


def frame_stride(average_fps: float | None, fps: float | None) -> int:
    """Every how many frames one is sampled: round(average_fps / fps), at least 1; 1 if either is unknown.

    `round` sends halves to the even number, as the official code does, which however crashes below 1.
    """
    if not average_fps or not fps or not np.isfinite(average_fps):
        return 1
    return max(1, round(average_fps / fps))


def frame_timestamps(
    indices: Sequence[int] | np.ndarray, average_fps: float | None, *, stride: int | None = None
) -> list[float]:
    """When frames are shown, in seconds from the first one.

    Args:
        indices: frame indices.
        average_fps: frames a second of the video; not needed with `stride`.
        stride: None gives seconds, `index / average_fps`. A stride gives what the official code writes for frames that
            it sampled at that stride: `index / stride`, which is seconds at 1 fps only.

    Raises:
        ValueError: when seconds are asked for and `average_fps` is unknown.
    """
    rate = average_fps if stride is None else stride
    if not rate:
        raise ValueError(
            "The video has no known frame rate, so its frames have no time stamps: pass `video_metadata` with `fps`."
        )
    return [float(index) / rate for index in indices]


def check_sampling(num_frames: Any = None, fps: Any = None, max_frames: Any = None) -> None:
    """Raises a ValueError that names the values if the sampling options contradict each other or make no sense."""
    if num_frames is not None and fps is not None:
        raise ValueError(
            f"`num_frames={num_frames}` and `fps={fps}` are two ways to choose frames: pass one of them,"
            " and `max_frames` to limit what `fps` gives."
        )
    for name, value, kind in (("num_frames", num_frames, int), ("max_frames", max_frames, int), ("fps", fps, float)):
        if value is None:
            continue
        number = isinstance(value, (int, np.integer) if kind is int else (int, float, np.integer, np.floating))
        if not number or isinstance(value, bool) or not value > 0 or not np.isfinite(value):
            wanted = "a whole number of at least 1" if kind is int else "a positive number of frames a second"
            raise ValueError(f"`{name}={value!r}` is impossible: pass {wanted}.")


def sample_frames_by_time(
    times: np.ndarray,
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    max_frames: int | None = None,
    force_sample: bool = False,
) -> np.ndarray:
    """As `sample_frame_indices`, but evenly over the time of a video rather than over its frames.

    Where frames do not come at a constant rate, a pause is then as long for the model as for a viewer: its frame
    repeats.

    Args:
        times: float64 (frames,), when each frame is shown, in seconds, ascending, the first at 0.
        num_frames, fps, max_frames, force_sample: see `sample_frame_indices`.

    Returns:
        int64 indices, ascending: of the frames that are on the screen at 0, 1/fps, 2/fps, ... seconds, or at as many
        moments as are asked for, from the first frame's to the last one's.
    """
    total, length = len(times), float(times[-1])
    if num_frames is None and fps is not None and not force_sample:
        check_sampling(fps=fps, max_frames=max_frames)
        count = int(length * fps + 1e-6) + 1
        if max_frames is None or count <= max_frames:
            return _shown_at(times, np.arange(count) / fps)
        return _shown_at(times, np.linspace(0, length, max_frames))
    count = len(
        sample_frame_indices(total, num_frames=num_frames, max_frames=max_frames, force_sample=force_sample, fps=fps)
    )
    return _shown_at(times, np.linspace(0, length, count))


def _shown_at(times: np.ndarray, moments: np.ndarray) -> np.ndarray:
    # Half a millisecond covers the rounding of times in containers.
    return np.searchsorted(times, moments + 5e-4, side="right").astype(np.int64) - 1


__all__ = [
    "check_sampling",
    "frame_stride",
    "frame_timestamps",
    "sample_frame_indices",
    "sample_frames_by_time",
]
