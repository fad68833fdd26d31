"""Frames of an opened video in one array: converted and resized in threads while the next ones are decoded."""

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from .video_clip_vidlada import Clip, checked_indices, mixed_sizes

# Pillow, FFmpeg's scaler and numpy let go of Python's lock. More threads would wait for the decoder, and hold frames.
WORKERS = min(4, os.cpu_count() or 1)


def read_frames(
    clip: Clip,
    indices: Sequence[int],
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
    size: tuple[int, int] | None = None,
) -> tuple[np.ndarray, tuple[int, int]]:
    """Reads frames and changes each as it comes, so that only a few are held as they were decoded.

    Args:
        clip: the opened video.
        indices: of the frames, in any order, repeats allowed.
        transform: uint8 RGB (height, width, 3) -> uint8 (...), of the same shape for every frame. None: no change. It
            is called in threads.
        size: passed to `clip.frames`.

    Returns:
        frames: uint8 (len(indices), ...).
        native: height and width of the first frame before `transform`.

    Raises:
        VideoReadingError: a frame cannot be read, or frames that nothing resizes differ in size.
    """
    wanted = np.array(checked_indices(indices, clip.metadata.total_num_frames))
    frames: np.ndarray | None = None
    native: tuple[int, int] = (0, 0)

    def load(read: Callable[[], np.ndarray]) -> tuple[np.ndarray, tuple[int, int]]:
        image = read()
        return (image if transform is None else transform(image)), (image.shape[0], image.shape[1])

    def store(index: int, loading: "Future[tuple[np.ndarray, tuple[int, int]]]") -> None:
        nonlocal frames, native
        image, shape = loading.result()
        if frames is None:
            frames, native = np.empty((len(wanted), *image.shape), np.uint8), shape
        if image.shape != frames.shape[1:]:
            raise mixed_sizes(frames.shape[1:], image.shape, index)
        frames[wanted == index] = image

    waiting: deque[tuple[int, Future[tuple[np.ndarray, tuple[int, int]]]]] = deque()
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="frames") as pool:
        try:
            for index, read in clip.frames(np.unique(wanted).tolist(), size):
                waiting.append((index, pool.submit(load, read)))
                del read  # the pool alone holds what was decoded
                while len(waiting) > WORKERS:
                    store(*waiting.popleft())
            while waiting:
                store(*waiting.popleft())
        finally:
            for _, loading in waiting:
                loading.cancel()
    assert frames is not None
    return frames, native


__all__ = ["read_frames"]
