"""Animated pictures are videos wherever they are given."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, features

from tests import clips
from vidlada_hf.processing.animation_vidlada import is_animated_picture
from vidlada_hf.processing.limits_vidlada import ReadingLimits
from vidlada_hf.processing.video_processing_vidlada import VidLaDAVideoProcessor, list_videos
from vidlada_hf.processing.video_reading_vidlada import VideoReadingError, read_video

from .helpers import ask, assert_names_source_and_remedy, cut, every_frame, inputs_of, small_processor
from .servers import content as content_of
from .servers import serve

ANIMATED = ["webp", "png", "gif", "avif"]


def save(path, count=6, milliseconds=200):
    if path.suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow writes no AVIF")
    pictures = [Image.fromarray(picture) for picture in clips.pictures(count)]
    # Of the options each writer takes those that it knows.
    options = {"lossless": True} if path.suffix == ".webp" else {"quality": 95} if path.suffix == ".avif" else {}
    if count > 1:
        options |= {"save_all": True, "append_images": pictures[1:], "duration": milliseconds}
    pictures[0].save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ANIMATED)
def test_an_animated_picture_is_a_video(tmp_path, suffix):
    path = save(tmp_path / f"moving.{suffix}")
    expected = np.stack(list(clips.pictures(6)))
    for source in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes())):
        frames, metadata = read_video(source, every_frame)
        assert metadata.total_num_frames == 6 and (metadata.height, metadata.width) == (64, 80)
        assert metadata.timestamps == pytest.approx([0.2 * i for i in range(6)], abs=0.011)
        assert metadata.duration == pytest.approx(1.2, abs=0.02)
        if suffix in ("webp", "png"):
            assert np.array_equal(frames, expected)
        else:  # a palette, or lossy
            assert np.abs(frames.astype(int) - expected).mean() < 8
        assert np.array_equal(read_video(source, lambda _: [5, 1, 1])[0], frames[[5, 1, 1]])


@pytest.mark.parametrize("suffix", ANIMATED)
def test_a_list_of_them_is_a_list_of_videos(tmp_path, suffix):
    paths = [save(tmp_path / f"{i}.{suffix}", count) for i, count in enumerate((3, 4))]
    assert list_videos(paths) == paths
    assert list_videos([str(path) for path in paths]) == [str(path) for path in paths]
    processor = VidLaDAVideoProcessor(size={"height": 28, "width": 28}, num_frames=8)
    assert processor(paths)["num_frames_per_video"].tolist() == [3, 4]


@pytest.mark.parametrize("suffix", ANIMATED)
def test_it_is_a_video_in_a_message(tmp_path, suffix):
    paths = [save(tmp_path / f"{i}.{suffix}", count) for i, count in enumerate((3, 4))]
    processor = small_processor()
    expected = processor.video_processor(paths[0], num_frames=8)["pixel_values_videos"]
    content = paths[0].read_bytes()
    row = {"bytes": content, "path": "a.mp4"}
    with serve({f"/a.{suffix}": content_of(content)}) as host:
        for part in (
            *({"path": str(paths[0])}, {"video": paths[0]}, {"video": [str(paths[0])]}, {"url": paths[0].as_uri()}),
            *({"video": content}, {"video": io.BytesIO(content)}, {"video": row}, {"url": f"{host}/a.{suffix}"}),
        ):
            message = ask(None, "What?")
            message[0]["content"].insert(0, {"type": "video", **part})
            inputs = inputs_of(processor, message, num_frames=8, allow_private_urls=True)
            assert torch.equal(inputs["pixel_values_videos"], expected), part
    (question,) = ask(paths[0], "What?")
    question["content"].insert(1, {"type": "video", "video": paths[1].read_bytes(), "num_frames": 2})
    assert inputs_of(processor, [question], num_frames=8)["num_frames_per_video"].tolist() == [3, 2]


def test_still_pictures_are_frames(tmp_path):
    paths = [save(tmp_path / f"{i}.{suffix}", 1) for i, suffix in enumerate(("webp", "png"))]
    assert not any(is_animated_picture(str(path)) for path in paths)
    assert list_videos(paths) == [paths]
    assert not is_animated_picture(str(tmp_path / "nowhere.png"))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp", "ppm", "pgm", "avif"])
def test_a_still_picture_is_the_same_wherever_it_is_given(tmp_path, suffix):
    path = save(tmp_path / f"still.{suffix}", 1)
    (expected,), _ = read_video([path], every_frame)
    misnamed = tmp_path / "frame%d.jpg"
    misnamed.write_bytes(path.read_bytes())
    with misnamed.open("rb") as opened:
        for source in (path, path.read_bytes(), opened, misnamed, [misnamed]):
            (frame,), metadata = read_video(source, every_frame)
            assert metadata.total_num_frames == 1
            assert np.array_equal(frame, expected) or (suffix == "avif" and np.abs(frame - 1.0 * expected).mean() < 3)


@pytest.mark.parametrize("name", ["a.mjpeg", "a.jpg", "a.mp4"])
def test_jpegs_behind_each_other_are_a_video_unless_the_first_lists_them(tmp_path, name):
    """Phones put a map of brightness behind a picture, and their readers show the picture."""
    first, *rest = images = [Image.fromarray(picture) for picture in clips.pictures(3)]
    parts = []
    for image in images:
        image.save(tmp_path / "part.jpg")
        parts.append((tmp_path / "part.jpg").read_bytes())
    (tmp_path / name).write_bytes(b"".join(parts))
    assert len(read_video(tmp_path / name, every_frame)[0]) == 3
    first.save(tmp_path / name, "MPO", save_all=True, append_images=rest)
    (frame,), _ = read_video(tmp_path / name, every_frame)
    assert np.array_equal(frame, np.asarray(Image.open(tmp_path / name)))


def test_the_suffix_does_not_matter(tmp_path):
    path = save(tmp_path / "moving.webp").rename(tmp_path / "moving.mp4")
    assert len(read_video(path, every_frame)[0]) == 6


def test_times_of_frames_that_stay_differently_long(tmp_path):
    path = save(tmp_path / "moving.webp", milliseconds=[100, 5000, 100, 100, 100, 600])
    _, metadata = read_video(path, every_frame)
    assert metadata.timestamps == pytest.approx([0, 0.1, 5.1, 5.2, 5.3, 5.4])
    assert metadata.duration == pytest.approx(6.0)


def test_a_damaged_one_raises_one_error(tmp_path):
    path = cut(save(tmp_path / "moving.webp"), 0.6)
    with pytest.raises(VideoReadingError) as caught:
        read_video(path, every_frame)
    assert_names_source_and_remedy(caught.value, repr(str(path)))


def test_limits(tmp_path):
    path = save(tmp_path / "moving.webp")
    for changes in ({"max_pixels": 5000}, {"max_decoded_pixels": 80 * 64}):
        with pytest.raises(VideoReadingError, match="6 frames of 80x64 are more than"):
            read_video(path, every_frame, limits=ReadingLimits(**changes))


def test_what_it_gives_the_model(tmp_path):
    path = save(tmp_path / "moving.webp")
    processor = VidLaDAVideoProcessor()
    expected = processor(np.stack(list(clips.pictures(6))), num_frames=3)["pixel_values_videos"]
    assert torch.equal(processor(path, num_frames=3)["pixel_values_videos"], expected)
