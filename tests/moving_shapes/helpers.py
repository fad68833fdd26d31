"""Scenes to test with, and an observer that derives answers from single frames alone."""

import numpy as np
from hypothesis import strategies as st

from moving_shapes.scenes.sampling import KINDS, sample_scene
from moving_shapes.scenes.scene import COLORS, Scene
from moving_shapes.scenes.splits import SPLITS


def scene_of(seed: int, split: str = "train", kind: str | None = None) -> Scene:
    return sample_scene(np.random.Generator(np.random.Philox(seed)), split, kind)


scenes = st.builds(scene_of, st.integers(0, 2**32), st.sampled_from(sorted(SPLITS)), st.sampled_from(KINDS))


class Observer:
    """Knows which (color, shape) is where in each sampled frame, and nothing else.

    `frames`: for each time a dictionary from (color, shape) to the center's (x, y).
    """

    def __init__(self, scene: Scene, times: np.ndarray) -> None:
        self.frames: list[dict[tuple[str, str], tuple[float, float]]] = []
        shapes = [(shape.visible(times), shape.centers(times), shape.color_indices(times)) for shape in scene.shapes]
        for i in range(len(times)):
            self.frames.append(
                {
                    (COLORS[colors[i]], shape.shape): (float(centers[i, 0]), float(centers[i, 1]))
                    for shape, (visible, centers, colors) in zip(scene.shapes, shapes, strict=True)
                    if visible[i]
                }
            )

    def track(self, shape: str) -> list[tuple[str, float, float] | None]:
        """The color and the center of the only thing of that shape, frame by frame."""
        items = [[(c, *center) for (c, s), center in frame.items() if s == shape] for frame in self.frames]
        return [item[0] if item else None for item in items]

    def kinds(self) -> list[str]:
        """Shapes in the order in which they first appear, from left to right where that is together."""
        order: list[str] = []
        for frame in self.frames:
            for _, shape in sorted(frame, key=lambda combination: frame[combination][0]):
                if shape not in order:
                    order.append(shape)
        return order

    def motion(self, shape: str) -> str:
        track = [item for item in self.track(shape) if item is not None]
        dx, dy = track[-1][1] - track[0][1], track[-1][2] - track[0][2]
        if max(abs(dx), abs(dy)) < 0.05:
            return "still"
        if abs(dx) > abs(dy):
            return "right" if dx > 0 else "left"
        return "down" if dy > 0 else "up"

    def colors(self, shape: str) -> list[str]:
        return [item[0] for item in self.track(shape) if item is not None]

    def changing(self) -> list[str]:
        return [shape for shape in self.kinds() if len(set(self.colors(shape))) > 1]

    def visits(self, combination: tuple[str, str]) -> int:
        """How many times a (color, shape) comes into the frame."""
        visible = [combination in frame for frame in self.frames]
        return sum(now and not before for before, now in zip([False, *visible], visible, strict=False))
