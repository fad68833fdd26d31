"""Frames show the scene, in arrays and in files."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from moving_shapes.scenes.rendering import PALETTE, coverage, render, write_video
from moving_shapes.scenes.scene import COLORS, SHAPES, Scene, frame_times
from vidlada_hf.processing.video_processing_vidlada import VidLaDAVideoProcessor
from vidlada_hf.processing.video_reading_vidlada import read_video

from ..helpers import scene_of, scenes

COLOR_VALUES = np.array([PALETTE[color] for color in COLORS], float)


def area_of(scene: Scene, number: int, time: int, size: int) -> np.ndarray:
    """The pixels of a shape at time `time` of 8: bool (size, size)."""
    shape = scene.shapes[number]
    x, y = shape.centers(frame_times(8))[time]
    axis = (np.arange(size) + 0.5) / size
    return coverage(shape.shape, (axis[None] - x) / shape.radius, (axis[:, None] - y) / shape.radius, 1e3) > 0.5


@settings(max_examples=40, deadline=None)
@given(scenes)
def test_each_visible_shape_is_drawn_whole_in_its_color(scene: Scene) -> None:
    times = frame_times(8)
    frames = render(scene, times).astype(float)
    for number, shape in enumerate(scene.shapes):
        for time in np.flatnonzero(shape.visible(times)):
            area = area_of(scene, number, time, 64)
            pixels = frames[time][area]
            nearest = np.abs(pixels[:, None] - COLOR_VALUES).sum(-1).argmin(-1)
            assert area.sum() > 40
            assert (nearest == shape.color_indices(times)[time]).mean() > 0.6


def test_a_frame_does_not_depend_on_the_others() -> None:
    scene = scene_of(1, kind="many_events")
    many = render(scene, frame_times(64))
    np.testing.assert_array_equal(render(scene, frame_times(8)), many[::9])
    np.testing.assert_array_equal(render(scene, frame_times(64)[5:7]), many[5:7])


def test_shapes_differ_in_more_than_a_fifth_of_their_pixels() -> None:
    x, y = np.linspace(-1.2, 1.2, 22)[None], np.linspace(-1.2, 1.2, 22)[:, None]
    areas = [coverage(shape, x, y, 8.0) for shape in SHAPES]
    for i, area in enumerate(areas):
        for other in areas[:i]:
            assert np.abs(area - other).sum() > 0.2 * max(area.sum(), other.sum())


@pytest.mark.parametrize("kind", ["many_events", "reappearances", "color_changes"])
@pytest.mark.parametrize("num_frames", [8, 16, 32])
def test_files_show_what_arrays_show(tmp_path: Path, kind: str, num_frames: int) -> None:
    scene = scene_of(2, "test", kind)
    path = write_video(scene, tmp_path / "clip.mp4")
    processor = VidLaDAVideoProcessor(size={"height": 64, "width": 64})
    processed = processor(path, num_frames=num_frames, return_tensors="np")
    from_file = (processed["pixel_values_videos"] + 1) * 127.5
    expected = render(scene, frame_times(num_frames)).transpose(0, 3, 1, 2)
    assert from_file.shape == expected.shape
    error = np.abs(from_file - expected)
    assert error.mean() < 5 and error.mean((1, 2, 3)).max() < 6


def test_files_are_h264_of_the_asked_size_and_length(tmp_path: Path) -> None:
    path = write_video(scene_of(0), tmp_path / "new" / "clip.mp4", size=96, clip_frames=20, fps=10)
    _, metadata = read_video(path, lambda metadata: [0])
    assert (metadata.total_num_frames, metadata.fps, metadata.height, metadata.width) == (20, 10, 96, 96)
    assert b"avc1" in path.read_bytes()
    assert [item.name for item in path.parent.iterdir()] == ["clip.mp4"]


@pytest.mark.parametrize("size", [0, 8, 63])
def test_impossible_sizes_are_named(size: int) -> None:
    with pytest.raises(ValueError, match=f"size={size}"):
        render(scene_of(0), frame_times(8), size)


def test_no_times_are_an_error() -> None:
    with pytest.raises(ValueError, match="at least one time"):
        render(scene_of(0), np.zeros(0))
