"""What happens to the shape in a cell over the whole clip: dense labels for the text model's visual rows.

A question gives one bit of gradient about a video of hundreds of rows; these give several about each row that shows a
shape. They make visual rows compute across frames what the questions then only have to look up.
"""

import numpy as np

from .. import Scene
from ..scenes.cells import Cells
from ..scenes.scene import COLORS, MOTIONS, SHAPES

# name -> how many classes
TIMELINES = {
    "shape": len(SHAPES),
    "motion": len(MOTIONS),
    "order": 5,  # as it appears, from left to right where some appear together
    "first_color": len(COLORS),
    "last_color": len(COLORS),
    "turns": 2,
    "there_at_start": 2,
    "there_at_end": 2,
    "stays": 3,
    "is_last": 2,
    "shapes": 5,  # of the whole clip
    "arrival": len(SHAPES) + 1,  # what this frame shows and the one before did not; nothing
}
UNKNOWN = -1
_NAMES: dict[str | None, tuple[str, ...]] = {"color": ("first_color", "last_color"), "shape": ("shape", "arrival")}


def label_timelines(scene: Scene, times: np.ndarray, cells: Cells) -> np.ndarray:
    """Labels of every cell at `times` (T,): int64 (T, grid, grid, labels), -1 in empty cells and where not defined."""
    of_shape = np.stack([life_of(scene, place, times) for place in range(len(scene.shapes))])
    labels = np.where(cells.identity[..., None] >= 0, of_shape[cells.identity], UNKNOWN)
    arrivals = _arrivals(scene, times)[:, None, None]
    labels[..., list(TIMELINES).index("arrival")] = np.where(cells.identity >= 0, arrivals, UNKNOWN)
    return labels


def life_of(scene: Scene, place: int, times: np.ndarray) -> np.ndarray:
    """The labels of a shape of the scene that are the same in all frames, int64 (labels,)."""
    shape = scene.shapes[place]
    visible = shape.visible(times)
    label = {
        "shape": SHAPES.index(shape.shape),
        "motion": UNKNOWN if shape.motion is None else MOTIONS.index(shape.motion),
        "order": place,
        "first_color": COLORS.index(shape.color),
        "last_color": COLORS.index(shape.new_color or shape.color),
        "turns": int(shape.new_color is not None),
        "there_at_start": int(visible[0]),
        "there_at_end": int(visible[-1]),
        "stays": len(shape.spans) - 1,
        "is_last": int(place == len(scene.shapes) - 1),
        "shapes": len(scene.shapes) - 1,
        "arrival": UNKNOWN,
    }
    return np.array([label[name] for name in TIMELINES])


def forget(labels: np.ndarray, kind: str | None) -> np.ndarray:
    """Labels (..., labels) without those that name a "color" or a "shape"."""
    named = [place for place, name in enumerate(TIMELINES) if name in _NAMES.get(kind, ())]
    labels = labels.copy()
    labels[..., named] = UNKNOWN
    return labels


def _arrivals(scene: Scene, times: np.ndarray) -> np.ndarray:
    """The shape that each frame shows and the one before did not, int64 (T,); -1 where there are several."""
    visible = np.stack([shape.visible(times) for shape in scene.shapes])
    fresh = visible & ~np.pad(visible, ((0, 0), (1, 0)), constant_values=True)[:, :-1]
    names = np.array([SHAPES.index(shape.shape) for shape in scene.shapes])
    found = np.where(fresh.any(0), names[fresh.argmax(0)], len(SHAPES))
    return np.where(fresh.sum(0) > 1, UNKNOWN, found)


__all__ = ["TIMELINES", "UNKNOWN", "forget", "label_timelines", "life_of"]
