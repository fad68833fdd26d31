"""Scenes to test with, and their truth found again from what can be seen at single moments only."""

import numpy as np
from hypothesis import strategies as st

from moving_shapes.scenes.sampling import KINDS, sample_scene
from moving_shapes.scenes.scene import COLORS, Scene
from moving_shapes.scenes.splits import SPLITS


def scene_of(seed: int, split: str = "train", kind: str | None = None) -> Scene:
    return sample_scene(np.random.Generator(np.random.Philox(seed)), split, kind)


scenes = st.builds(scene_of, st.integers(0, 2**32), st.sampled_from(sorted(SPLITS)), st.sampled_from(KINDS))


class Watcher:
    """Somebody who sees, in each sampled frame, which (color, shape) is where, and nothing else.

    `frames`: for each time a dictionary from (color, shape) to the center's (x, y).
    """

    def __init__(self, scene: Scene, times: np.ndarray) -> None:
        self.frames: list[dict[tuple[str, str], tuple[float, float]]] = []
        seen = [(shape.visible(times), shape.centers(times), shape.color_numbers(times)) for shape in scene.shapes]
        for i in range(len(times)):
            self.frames.append(
                {
                    (COLORS[colors[i]], shape.shape): (float(places[i, 0]), float(places[i, 1]))
                    for shape, (shown, places, colors) in zip(scene.shapes, seen, strict=True)
                    if shown[i]
                }
            )

    def track(self, shape: str) -> list[tuple[str, float, float] | None]:
        """The color and the place of the only thing of that shape, frame by frame."""
        found = [[(c, *place) for (c, s), place in frame.items() if s == shape] for frame in self.frames]
        return [items[0] if items else None for items in found]

    def kinds(self) -> list[str]:
        """Shapes in the order in which they are first seen, from left to right where that is together."""
        order: list[str] = []
        for frame in self.frames:
            for _, shape in sorted(frame, key=lambda look: frame[look][0]):
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

    def turning(self) -> list[str]:
        return [shape for shape in self.kinds() if len(set(self.colors(shape))) > 1]

    def runs(self, look: tuple[str, str]) -> int:
        """How many times a look comes into the picture."""
        shown = [look in frame for frame in self.frames]
        return sum(now and not before for before, now in zip([False, *shown], shown, strict=False))
