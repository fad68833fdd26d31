"""A video before it is drawn: shapes, their positions over time, and the events that happen to them.

Times are fractions of the clip, 0 (first frame) to 1 (last frame). Positions are fractions of the frame's side, x to
the right and y down. `BEAT` is the time between two of eight evenly sampled frames. Nothing that a question asks about
is shorter, so the answer is the same from eight frames and from any larger number of them.
"""

from dataclasses import dataclass

import numpy as np

COLORS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "pink")
SHAPES = ("circle", "square", "triangle", "cross", "ring", "bar")
MOTIONS = ("left", "right", "up", "down", "still")
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}

BEAT = 1 / 7
CLIP_FRAMES = 64


@dataclass(frozen=True)
class Span:
    """One visit to the frame: visible from `start` until just before `end`, moving at constant speed.

    Args:
        start, end: fractions of the clip; an `end` of 1 includes the last frame.
        origin, target: (x, y) of the center at `start` and at `end`, fractions of the frame's side.
    """

    start: float
    end: float
    origin: tuple[float, float]
    target: tuple[float, float]

    def covers(self, times: np.ndarray) -> np.ndarray:
        """Whether the shape is visible at each of `times` (T,): bool (T,)."""
        return (times >= self.start) & ((times < self.end) | (self.end >= 1))

    def centers(self, times: np.ndarray) -> np.ndarray:
        """Centers at `times` (T,), whether visible or not: float64 (T, 2)."""
        passed = np.clip((times - self.start) / (self.end - self.start), 0, 1)[:, None]
        origin = np.array(self.origin)
        return origin + (np.array(self.target) - origin) * passed


@dataclass(frozen=True)
class MovingShape:
    """A shape over the whole clip. What looks the same is the same shape, however often it comes back.

    Args:
        color, shape: of `COLORS` and `SHAPES`.
        radius: half of its width, a fraction of the frame's side.
        spans: its visits to the frame, in order, with time between them.
        motion: of `MOTIONS`; None where the shape comes back, or is visible too briefly to be asked about.
        new_color, change_time: the color that it changes to, and when; None if it keeps its color.
    """

    color: str
    shape: str
    radius: float
    spans: tuple[Span, ...]
    motion: str | None
    new_color: str | None = None
    change_time: float | None = None

    @property
    def name(self) -> str:
        """Its first color and its shape: "red circle"."""
        return f"{self.color} {self.shape}"

    @property
    def combinations(self) -> tuple[tuple[str, str], ...]:
        """Each (color, shape) that it has in the clip."""
        first = (self.color, self.shape)
        return (first,) if self.new_color is None else (first, (self.new_color, self.shape))

    @property
    def appears(self) -> float:
        """When it is first visible, a fraction of the clip."""
        return self.spans[0].start

    @property
    def disappears(self) -> float:
        """When it leaves for the last time, a fraction of the clip; 1 if it stays to the end."""
        return self.spans[-1].end

    def visible(self, times: np.ndarray) -> np.ndarray:
        """Whether it is in the frame at `times` (T,): bool (T,)."""
        return np.any([span.covers(times) for span in self.spans], axis=0)

    def centers(self, times: np.ndarray) -> np.ndarray:
        """Centers at `times` (T,): float64 (T, 2), NaN where it is not in the frame."""
        centers = np.full((len(times), 2), np.nan)
        for span in self.spans:
            visible = span.covers(times)
            centers[visible] = span.centers(times[visible])
        return centers

    def color_indices(self, times: np.ndarray) -> np.ndarray:
        """Its color at `times` (T,), visible or not, as indices into `COLORS`: int64 (T,)."""
        indices = np.full(len(times), COLORS.index(self.color), np.int64)
        if self.new_color is not None and self.change_time is not None:
            indices[times >= self.change_time] = COLORS.index(self.new_color)
        return indices


@dataclass(frozen=True)
class Scene:
    """A video before it is drawn.

    Args:
        split: the split that it belongs to.
        kind: which events it has, of `sampling.KINDS`.
        shapes: in reading order: as they appear, and from left to right where some appear together.
        background: of `splits.BACKGROUNDS`.
        seed: of what only the rendering depends on: tints, textures, noise.
    """

    split: str
    kind: str
    shapes: tuple[MovingShape, ...]
    background: str
    seed: int


def frame_times(num_frames: int, clip_frames: int = CLIP_FRAMES) -> np.ndarray:
    """Times of evenly sampled frames.

    Args:
        num_frames: how many are sampled.
        clip_frames: frames of the clip that they are sampled from. The result is that of the video processor's
            `num_frames`: `linspace` over the frames, cut to whole numbers.

    Returns:
        float64 (num_frames,), fractions of the clip, ascending, 0 first.

    Raises:
        ValueError: if there are not that many frames.
    """
    if num_frames <= 0 or num_frames > clip_frames or clip_frames < 2:
        raise ValueError(
            f"`num_frames={num_frames}` of a clip of {clip_frames} frames is impossible: sample 1 to `clip_frames`,"
            " and make clips of at least 2."
        )
    return np.linspace(0, clip_frames - 1, num_frames, dtype=np.int64) / (clip_frames - 1)


__all__ = [
    "BEAT",
    "CLIP_FRAMES",
    "COLORS",
    "DIRECTIONS",
    "MOTIONS",
    "SHAPES",
    "MovingShape",
    "Scene",
    "Span",
    "frame_times",
]
