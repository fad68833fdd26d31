"""Dense labels for visual tokens: the events of the shape in a cell over the whole clip.

The answer to a question gives about one bit of gradient for a video of hundreds of tokens; these labels give several
for each token that shows a shape. They make visual tokens compute across frames what the questions then look up.
"""

import numpy as np

from .. import Scene
from ..scenes.cells import Cells
from ..scenes.scene import COLORS, MOTIONS, SHAPES

# name -> number of classes
LABELS = {
    "shape": len(SHAPES),
    "motion": len(MOTIONS),
    "order": 5,  # of appearance, from left to right where some appear together
    "first_color": len(COLORS),
    "last_color": len(COLORS),
    "changes_color": 2,
    "visible_at_start": 2,
    "visible_at_end": 2,
    "visits": 3,
    "is_last": 2,
    "shape_count": 5,  # of the whole clip
    "arrival": len(SHAPES) + 1,  # the shape that is in this frame and not in the one before; none
    "next_color": len(COLORS) + 1,  # of the shape that comes next in reading order; none
    "next_shape": len(SHAPES) + 1,
}
LATE_LABELS = ("next_color", "next_shape")  # follow from the order of all shapes: of deeper layers
UNKNOWN = -1
_OF_KIND: dict[str | None, tuple[str, ...]] = {
    "color": ("first_color", "last_color", "next_color"),
    "shape": ("shape", "arrival", "next_shape"),
}


def label_cells_over_time(scene: Scene, times: np.ndarray, cells: Cells) -> np.ndarray:
    """Labels of each cell at `times` (T,): int64 (T, grid, grid, labels), `UNKNOWN` where empty or undefined."""
    of_shape = np.stack([label_shape(scene, index, times) for index in range(len(scene.shapes))])
    labels = np.where(cells.identity[..., None] >= 0, of_shape[cells.identity], UNKNOWN)
    arrivals = _arrivals(scene, times)[:, None, None]
    labels[..., list(LABELS).index("arrival")] = np.where(cells.identity >= 0, arrivals, UNKNOWN)
    return labels


def label_shape(scene: Scene, index: int, times: np.ndarray) -> np.ndarray:
    """Labels of shape `index` of the scene, those that are the same in all frames: int64 (labels,)."""
    shape = scene.shapes[index]
    following = scene.shapes[index + 1] if index + 1 < len(scene.shapes) else None
    visible = shape.visible(times)
    label = {
        "shape": SHAPES.index(shape.shape),
        "motion": UNKNOWN if shape.motion is None else MOTIONS.index(shape.motion),
        "order": index,
        "first_color": COLORS.index(shape.color),
        "last_color": COLORS.index(shape.new_color or shape.color),
        "changes_color": int(shape.new_color is not None),
        "visible_at_start": int(visible[0]),
        "visible_at_end": int(visible[-1]),
        "visits": len(shape.spans) - 1,
        "is_last": int(index == len(scene.shapes) - 1),
        "shape_count": len(scene.shapes) - 1,
        "arrival": UNKNOWN,
        "next_color": len(COLORS) if following is None else COLORS.index(following.color),
        "next_shape": len(SHAPES) if following is None else SHAPES.index(following.shape),
    }
    return np.array([label[name] for name in LABELS])


def remove_kind(labels: np.ndarray, kind: str | None) -> np.ndarray:
    """Labels (..., labels) with those that name a "color" or a "shape" set to `UNKNOWN`; None removes none."""
    removed = [i for i, name in enumerate(LABELS) if name in _OF_KIND.get(kind, ())]
    labels = labels.copy()
    labels[..., removed] = UNKNOWN
    return labels


def _arrivals(scene: Scene, times: np.ndarray) -> np.ndarray:
    """The shape that is in each frame and not in the one before, int64 (T,); `UNKNOWN` where there are several."""
    visible = np.stack([shape.visible(times) for shape in scene.shapes])
    arrives = visible & ~np.pad(visible, ((0, 0), (1, 0)), constant_values=True)[:, :-1]
    names = np.array([SHAPES.index(shape.shape) for shape in scene.shapes])
    arrived = np.where(arrives.any(0), names[arrives.argmax(0)], len(SHAPES))
    return np.where(arrives.sum(0) > 1, UNKNOWN, arrived)


__all__ = ["LABELS", "LATE_LABELS", "UNKNOWN", "label_cells_over_time", "label_shape", "remove_kind"]
