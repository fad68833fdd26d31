"""Cell labels agree with the frames."""

import numpy as np
import pytest
from hypothesis import given, settings

from moving_shapes.scenes.cells import NO_COLOR, label_cells
from moving_shapes.scenes.rendering import render
from moving_shapes.scenes.scene import SHAPES, Scene, frame_times

from ..helpers import scene_of, scenes
from .test_rendering import COLOR_VALUES, area_of


@settings(max_examples=40, deadline=None)
@given(scenes)
def test_cell_labels_agree_with_the_frames(scene: Scene) -> None:
    times = frame_times(8)
    cells = label_cells(scene, times)
    assert (cells.color != NO_COLOR).sum() == sum(int(shape.visible(times).sum()) for shape in scene.shapes)
    np.testing.assert_array_equal(cells.identity >= 0, cells.color != NO_COLOR)
    frames = render(scene, times, 64).astype(float)
    for time, row, column in np.argwhere(cells.identity >= 0):
        number = cells.identity[time, row, column]
        assert SHAPES[cells.shape[time, row, column]] == scene.shapes[number].shape
        offset = cells.offset[time, row, column]
        assert (np.abs(offset) <= 0.5 + 1e-6).all()
        middle = ((np.array([column, row]) + 0.5 + offset) / 4 * 64).round(3)
        area = area_of(scene, number, time, 64)
        rows, columns = np.nonzero(area)
        weight = np.array([columns.mean(), rows.mean()]) + 0.5
        assert np.abs(weight - middle).max() < 3.5  # the middle of a triangle is not that of its area
        nearest = np.abs(frames[time][area][:, None] - COLOR_VALUES).sum(-1).argmin(-1)
        assert np.bincount(nearest).argmax() == cells.color[time, row, column]


def test_coarse_grids_are_an_error() -> None:
    with pytest.raises(ValueError, match="grid=3"):
        label_cells(scene_of(0), frame_times(8), grid=3)
