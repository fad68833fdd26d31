"""When the frames of a file are shown, how long it lasts, and its average rate, from the times of its packets."""

from typing import NamedTuple

import numpy as np

# A transport stream whose clock jumps further was joined or interrupted: FFmpeg's and other players' threshold.
_LONGEST_PAUSE = 10.0
_ROUNDING = 1e-3  # seconds to which containers round the times of a constant rate


class Clock(NamedTuple):
    """Attributes:
    times: float64 (frames,), seconds from the first frame. None without a clock.
    fps: average frames a second. None without a clock.
    duration: seconds. None without a clock.
    """

    times: np.ndarray | None
    fps: float | None
    duration: float | None


def make_clock(
    seconds: np.ndarray,
    declared_fps: float | None,
    *,
    tick: float = 0.0,
    last: float = 0.0,
    end: float | None = None,
    can_jump: bool = False,
) -> Clock:
    """The clock of frames in the order in which they are shown.

    A step back, a repetition or an unknown time is taken for a usual step: there the clock of the file started again.

    Args:
        seconds: float64 (frames,), the file's times; NaN where it does not tell.
        declared_fps: the rate that the header declares. It holds unless the times contradict it, and where they lie
            beside it by no more than rounding, they are taken to be those of this rate.
        tick: the unit of the times, in seconds.
        last: for how long the last frame is shown, in seconds; 0 if unknown.
        end: when the video ends by the file's times, if that is later.
        can_jump: whether a step of more than ten seconds is one of the clock and not a pause.
    """
    count = len(seconds)
    steps = np.diff(seconds)
    wrong = ~(steps > 0)
    if can_jump:
        wrong |= steps > _LONGEST_PAUSE
    usual = float(np.median(steps[~wrong])) if not wrong.all() else 1 / declared_fps if declared_fps else 0.0
    if not count or not (usual or last):
        return Clock(None, declared_fps, count / declared_fps if declared_fps else None)
    times = np.concatenate([[0.0], np.cumsum(np.where(wrong, usual, steps))]) if wrong.any() else seconds - seconds[0]
    if not np.isfinite(times).all():
        times = np.arange(count) * usual
    duration = float(times[-1]) + (last or usual)
    if end is not None and np.isfinite(seconds[0]):
        duration = max(duration, end - float(seconds[0]))
    if declared_fps is None or abs(count / declared_fps - duration) > 1 / declared_fps + 0.02 * duration:
        return Clock(times, count / duration, duration)
    ideal = np.arange(count) / declared_fps
    if np.abs(times - ideal).max() <= max(_ROUNDING, 1.5 * tick):
        return Clock(ideal, declared_fps, count / declared_fps)
    return Clock(times, declared_fps, duration)


__all__ = ["Clock", "make_clock"]
