"""The content of each cell of a grid over the frame: dense labels for training a vision tower."""

from dataclasses import dataclass

import numpy as np

from .sampling import CLEARANCE
from .scene import COLORS, SHAPES, Scene

NO_COLOR = len(COLORS)
NO_SHAPE = len(SHAPES)


@dataclass(frozen=True)
class Cells:
    """Labels of the cells of `T` frames; a cell holds a shape if the shape's center is in it.

    Args:
        color: int64 (T, grid, grid), indices into `COLORS`, `NO_COLOR` for an empty cell; rows go down.
        shape: int64 (T, grid, grid), indices into `SHAPES`, `NO_SHAPE` for an empty cell.
        identity: int64 (T, grid, grid), indices into `scene.shapes`, -1 for an empty cell.
        offset: float32 (T, grid, grid, 2), x and y from the cell's center to the shape's in cells, -0.5..0.5; 0 if
            empty.
    """

    color: np.ndarray
    shape: np.ndarray
    identity: np.ndarray
    offset: np.ndarray


def label_cells(scene: Scene, times: np.ndarray, grid: int = 4) -> Cells:
    """Labels each cell at `times` (T,).

    Raises:
        ValueError: if `grid` is below 4, where one cell could hold two shapes.
    """
    if grid * CLEARANCE < 1:
        raise ValueError(f"`grid={grid}` is too coarse: a cell could hold two shapes. Pass at least 4.")
    times = np.asarray(times, np.float64)
    size = (len(times), grid, grid)
    color, shape = np.full(size, NO_COLOR, np.int64), np.full(size, NO_SHAPE, np.int64)
    identity, offset = np.full(size, -1, np.int64), np.zeros((*size, 2), np.float32)
    for number, moving in enumerate(scene.shapes):
        visible = np.flatnonzero(moving.visible(times))
        centers = moving.centers(times[visible]) * grid
        column, row = np.clip(centers.astype(int), 0, grid - 1).T
        color[visible, row, column] = moving.color_indices(times[visible])
        shape[visible, row, column] = SHAPES.index(moving.shape)
        identity[visible, row, column] = number
        offset[visible, row, column] = centers - np.stack([column, row], -1) - 0.5
    return Cells(color, shape, identity, offset)


__all__ = ["NO_COLOR", "NO_SHAPE", "Cells", "label_cells"]
