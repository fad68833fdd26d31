"""Scenes to frames, at any times and any size, with smooth edges; and to H.264 files.

A frame depends on the scene, its time and its size alone, not on which other frames are drawn. So the frames of an
array and those sampled from a file differ by the codec alone.
"""

import os
import uuid
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from .scene import CLIP_FRAMES, COLORS, MovingShape, Scene, frame_times

PALETTE = {
    "red": (222, 38, 38),
    "green": (38, 168, 56),
    "blue": (44, 72, 232),
    "yellow": (246, 226, 40),
    "purple": (138, 40, 178),
    "orange": (248, 138, 24),
    "cyan": (44, 214, 224),
    "pink": (252, 146, 200),
}
UNNAMED_SHAPES = ("diamond", "half", "corner")  # never in the benchmark: they train colors apart from shapes
CLIP_FPS = 8

_TONES = {"dark": (12, 55), "gray": (80, 125), "light": (205, 240)}
_COLORS = np.array([PALETTE[color] for color in COLORS], np.float32)
_CHUNK = 64 * 256 * 256  # pixels of the frames that are drawn at a time into a file


def render(scene: Scene, times: np.ndarray, size: int = 64, palette: np.ndarray | None = None) -> np.ndarray:
    """Draws a scene.

    Args:
        times: fractions of the clip, (T,); see `frame_times`.
        size: height and width in pixels.
        palette: RGB, 0..255, (8, 3), in place of the colors of `COLORS`.

    Returns:
        uint8 RGB (T, size, size, 3).

    Raises:
        ValueError: for a size below 16, an odd one, or no times.
    """
    times = np.asarray(times, np.float64)
    if size < 16 or size % 2:
        raise ValueError(f"`size={size}` is impossible: pass an even number of pixels, at least 16.")
    if times.ndim != 1 or not len(times):
        raise ValueError(f"`times` of shape {times.shape} are impossible: pass at least one time, as (T,).")
    rng = np.random.Generator(np.random.Philox(scene.seed))
    frames = np.repeat(_background(rng, scene.background, size)[None], len(times), 0)
    tints = rng.uniform(-9, 9, (len(scene.shapes), 3)).astype(np.float32)
    for shape, tint in zip(scene.shapes, tints, strict=True):
        _paint(frames, shape, tint, times, _COLORS if palette is None else palette.astype(np.float32))
    _add_noise(rng, frames, times)
    if rng.random() < 0.5:
        _soften_colors(frames)
    return np.clip(frames + 0.5, 0, 255).astype(np.uint8)


def write_video(
    scene: Scene,
    path: Path | str,
    size: int = 64,
    clip_frames: int = CLIP_FRAMES,
    fps: Fraction | int = CLIP_FPS,
    crf: int = 12,
) -> Path:
    """Encodes a scene as an H.264 file (4:2:0, as every player wants it) that is complete or not there at all.

    Args:
        path: of the file; its suffix chooses the container.
        size: height and width in pixels.
        clip_frames: frames of the file.
        fps: frames a second.
        crf: quality of libx264, 0 (best) to 51.

    Returns:
        The path.
    """
    path = Path(path)
    times = frame_times(clip_frames, clip_frames)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    chunk = max(1, _CHUNK // (size * size))
    try:
        with av.open(str(unfinished), "w") as container:
            stream: Any = container.add_stream("libx264", rate=fps, options={"crf": str(crf), "preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
            stream.thread_count = 1
            for start in range(0, clip_frames, chunk):
                for frame in render(scene, times[start : start + chunk], size):
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def coverage(shape: str, x: np.ndarray, y: np.ndarray, sharpness: float) -> np.ndarray:
    """How much of a pixel a shape covers.

    Args:
        shape: of `scenes.SHAPES` or `UNNAMED_SHAPES`.
        x, y: the pixel's center relative to the shape's, in radii, y down; shapes that broadcast.
        sharpness: pixels a radius: edges are one pixel wide.

    Returns:
        0..1, of the shape of `x + y`.
    """
    return np.clip(0.5 - _distance(shape, x, y) * sharpness, 0, 1)


def _distance(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance to the outline in radii, negative inside; exact near edges, less so near corners."""
    ax, ay = np.abs(x), np.abs(y)
    if shape == "circle":
        return np.hypot(x, y) - 0.92
    if shape == "square":
        return np.maximum(ax, ay) - 0.92
    if shape == "triangle":  # the apex is up
        return np.maximum(0.8944 * ax - 0.4472 * y - 0.4472, y - 0.9)
    if shape == "cross":
        return np.minimum(np.maximum(ax - 1, ay - 0.32), np.maximum(ax - 0.32, ay - 1))
    if shape == "ring":
        return np.abs(np.hypot(x, y) - 0.76) - 0.23
    if shape == "bar":
        return np.maximum(ax - 1, ay - 0.4)
    if shape == "diamond":
        return (ax + ay - 1.1) * 0.7071
    if shape == "half":
        return np.maximum(np.hypot(x, y + 0.4) - 1, -y - 0.4)
    if shape == "corner":
        return np.maximum(np.maximum(ax, ay) - 0.9, np.minimum(x + 0.25, 0.25 - y))
    raise ValueError(f"There is no shape {shape!r}.")


def _paint(frames: np.ndarray, shape: MovingShape, tint: np.ndarray, times: np.ndarray, palette: np.ndarray) -> None:
    """Draws one shape into the frames (T, size, size, 3) where it is visible: only the square around it is computed."""
    size = frames.shape[1]
    visible = np.flatnonzero(shape.visible(times))
    if not len(visible):
        return
    centers = shape.centers(times[visible]) * size - 0.5  # pixel 0 has its center at half a pixel
    radius = shape.radius * size
    width = min(size, int(2 * radius) + 4)
    corners = np.clip(np.ceil(centers - width / 2).astype(int), 0, size - width)
    steps = np.arange(width)
    columns, rows = corners[:, :1] + steps, corners[:, 1:] + steps  # (visible frames, width) each
    x = ((columns - centers[:, :1]) / radius).astype(np.float32)[:, None, :]
    y = ((rows - centers[:, 1:]) / radius).astype(np.float32)[:, :, None]
    alpha = coverage(shape.shape, x, y, radius)[..., None]
    color = (palette[shape.color_indices(times[visible])] + tint)[:, None, None, :]
    where = visible[:, None, None], rows[:, :, None], columns[:, None, :]
    below = frames[where]
    frames[where] = below + alpha * (color - below)


def _background(rng: np.random.Generator, name: str, size: int) -> np.ndarray:
    """A grayish frame, float32 (size, size, 3): its texture and tone are the name's, the rest is random."""
    texture, tone = name.split()
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = axis[None, :], axis[:, None]
    base = rng.uniform(*_TONES[tone]) + rng.uniform(-9, 9, 3)
    angle, period, phase, strength = (
        rng.uniform(0, 2 * np.pi),
        rng.uniform(0.12, 0.3),
        rng.uniform(0, 1),
        rng.uniform(5, 12),
    )
    along = np.cos(angle) * x + np.sin(angle) * y
    pattern = np.zeros((size, size), np.float32)
    if texture == "gradient":
        pattern = 2.5 * (along - along.mean())
    elif texture == "stripes":
        pattern = np.sin(2 * np.pi * (along / period + phase))
    elif texture == "checks":
        pattern = np.sign(np.sin(2 * np.pi * (x / period + phase)) * np.sin(2 * np.pi * (y / period + phase)))
    return (base + strength * pattern[..., None]).astype(np.float32)


def _add_noise(rng: np.random.Generator, frames: np.ndarray, times: np.ndarray) -> None:
    """Brightness of the scene, and noise of each frame: a crop of one field, whose offset follows from the time."""
    size = frames.shape[1]
    frames *= np.float32(rng.uniform(0.92, 1.06))
    strength = np.float32(rng.uniform(0, 6))
    field = rng.standard_normal((2 * size, 2 * size, 1), np.float32) * strength
    for frame, tick in zip(frames, np.rint(times * 5040).astype(int), strict=True):
        row, column = tick * 7919 % size, tick * 104729 % size
        frame += field[row : row + size, column : column + size]


def _soften_colors(frames: np.ndarray) -> None:
    """Halves the resolution of color but not of brightness, as video codecs do."""
    count, size = frames.shape[:2]
    brightness = frames @ np.array([0.299, 0.587, 0.114], np.float32)
    color = (frames - brightness[..., None]).reshape(count, size // 2, 2, size // 2, 2, 3)
    coarse = (color[:, :, 0, :, 0] + color[:, :, 0, :, 1] + color[:, :, 1, :, 0] + color[:, :, 1, :, 1]) / 4
    blocks = frames.reshape(count, size // 2, 2, size // 2, 2, 3)
    blocks[:] = brightness.reshape(count, size // 2, 2, size // 2, 2, 1) + coarse[:, :, None, :, None]


__all__ = ["CLIP_FPS", "UNNAMED_SHAPES", "PALETTE", "coverage", "render", "write_video"]
