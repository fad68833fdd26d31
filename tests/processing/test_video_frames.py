"""Frames decoded before: arrays, lists, folders of images."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests import clips
from vidlada_hf.processing.video_reading_vidlada import VideoReadingError, read_video

from .helpers import every_frame


@pytest.fixture
def stills():
    return np.stack(list(clips.pictures(12, 20, 30)))


@pytest.mark.parametrize(
    "form",
    [
        lambda x: x,
        lambda x: x.transpose(0, 3, 1, 2),
        torch.from_numpy,
        lambda x: torch.from_numpy(x).permute(0, 3, 1, 2),
        lambda x: x.astype(np.int64),
        lambda x: x / 255,
        lambda x: torch.from_numpy(x).float() / 255,
        list,
        lambda x: [torch.from_numpy(frame).permute(2, 0, 1) for frame in x],
        lambda x: [Image.fromarray(frame) for frame in x],
        lambda x: tuple(Image.fromarray(frame).convert("RGBA") for frame in x),
    ],
)
def test_forms_of_decoded_frames(stills, form):
    frames, metadata = read_video(form(stills), lambda _: [11, 0, 5, 5])
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(frames, stills[[11, 0, 5, 5]])
    assert metadata.total_num_frames == 12
    assert (metadata.fps, metadata.duration, metadata.height, metadata.width) == (None, None, 20, 30)


def test_gray_frames(stills):
    gray = stills[..., 1]
    expected = np.repeat(gray[..., None], 3, axis=-1)
    for form in (gray[..., None], list(gray), [Image.fromarray(frame) for frame in gray]):
        np.testing.assert_array_equal(read_video(form, every_frame)[0], expected)


def test_folder_of_frames_in_natural_order(tmp_path, stills):
    for index, frame in enumerate(stills):
        Image.fromarray(frame).save(tmp_path / f"frame{index}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / "._frame0.png").write_bytes(b"what a Mac leaves behind")
    (tmp_path / "frame12.png").write_bytes(b"never opened")
    frames, metadata = read_video(tmp_path, lambda _: [2, 10, 0])
    np.testing.assert_array_equal(frames, stills[[2, 10, 0]])
    assert metadata.total_num_frames == 13
    files = [tmp_path / "frame7.png", str(tmp_path / "frame3.png")]
    np.testing.assert_array_equal(read_video(files, every_frame)[0], stills[[7, 3]])


def test_a_damaged_image_in_a_folder_is_named(tmp_path):
    (tmp_path / "frame0.png").write_bytes(b"not a picture")
    with pytest.raises(VideoReadingError, match="frame0.png"):
        read_video(tmp_path, every_frame)
