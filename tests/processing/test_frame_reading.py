"""Frames of any clip in one array: order, repeats, what is done to each, and how many are held."""

import threading
from functools import partial

import numpy as np
import pytest

from vidlada_hf.processing.frame_reading_vidlada import WORKERS, read_frames
from vidlada_hf.processing.video_clip_vidlada import ClipMetadata, VideoReadingError


class Numbers:
    """A clip whose frame i is a picture of i, and which counts the frames that are on their way."""

    def __init__(self, total, size=(4, 6)):
        self.metadata = ClipMetadata(total_num_frames=total)
        self.size, self.asked, self.on_the_way, self.most = size, [], 0, 0
        self.lock = threading.Lock()

    def frames(self, indices, size=None):
        for index in indices:
            self.asked.append(index)
            with self.lock:
                self.on_the_way += 1
                self.most = max(self.most, self.on_the_way)
            yield index, partial(self.load, index)

    def load(self, index):
        with self.lock:
            self.on_the_way -= 1
        return np.full((*self.size, 3), index, np.uint8)

    def close(self):
        """Nothing is held."""


def test_order_and_repeats():
    clip = Numbers(50)
    frames, native = read_frames(clip, [40, 2, 2, 7, 40])
    assert frames[:, 0, 0, 0].tolist() == [40, 2, 2, 7, 40] and frames.shape == (5, 4, 6, 3) and native == (4, 6)
    assert clip.asked == [2, 7, 40]  # ascending, each once


def test_each_frame_is_changed_as_it_comes():
    frames, native = read_frames(Numbers(20), range(20), transform=lambda image: image[:1, :2, 0] * 2)
    assert frames.shape == (20, 1, 2) and frames[:, 0, 0].tolist() == list(range(0, 40, 2)) and native == (4, 6)


def test_few_frames_are_on_their_way():
    """A clip that is decoded faster than its frames are resized has to wait."""
    clip = Numbers(200)
    read_frames(clip, range(200), transform=lambda image: np.sort(np.tile(image, (8, 8, 1)), axis=0))
    assert clip.most <= 2 * WORKERS + 2


def test_an_error_on_the_way_is_raised_as_it_is():
    def refuse(image):
        raise ZeroDivisionError("no picture")

    with pytest.raises(ZeroDivisionError, match="no picture"):
        read_frames(Numbers(9), range(9), transform=refuse)


def test_sizes_that_differ_need_a_transform():
    clip = Numbers(3)
    clip.load = lambda index: np.zeros((4 + index, 6, 3), np.uint8)
    with pytest.raises(VideoReadingError, match="6x4 .* first, but 6x5 at frame 1"):
        read_frames(clip, range(3))


@pytest.mark.parametrize("indices", [[], [3], [-1]])
def test_frames_that_do_not_exist(indices):
    with pytest.raises(VideoReadingError, match="it has 3 frames"):
        read_frames(Numbers(3), indices)
