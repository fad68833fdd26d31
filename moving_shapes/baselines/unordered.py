"""What frames tell without their order: `python -m moving_shapes.baselines.unordered`.

Shuffled frames can cost a model only what the order was needed for. So here an observer sees eight frames as a set: of
each shape that is asked about (of all, where none is named), in how many frames it is seen in which color, and in how
many of these together with the other shape asked about. It gives the answer that is most frequent in the training split
for what it sees. Places are not looked at, so that more can be known than it knows.
"""

import argparse
from collections import Counter
from collections.abc import Hashable

import numpy as np

from ..dataset import MovingShapes
from ..questions import Question
from ..scenes.scene import COLORS, MovingShape, Scene, frame_times
from .priors import learn

FRAMES = 8
TYPES = ("first", "last", "start_color", "end_color", "disappearance", "presence", "again", "when", "appearances")


def measure_unordered(type: str, questions: int = 1000, split: str = "test", seed: int = 0) -> float:
    """The observer's accuracy, 0..1, on that many questions of a type, after twice as many of the training split.

    Args:
        type: of `TYPES`.

    Raises:
        ValueError: for another type.
    """
    if type not in TYPES:
        raise ValueError(f"What frames tell without their order is not known for {type!r}: pass one of {TYPES}.")
    known, _ = learn(_draw("train", type, 2 * questions, seed + 1))
    asked = _draw(split, type, questions, seed)
    return sum(seen in known and known[seen].most_common(1)[0][0] == answer for seen, answer in asked) / questions


def _draw(split: str, type: str, questions: int, seed: int) -> list[tuple[Hashable, Hashable]]:
    dataset = MovingShapes(split, questions, FRAMES, types=(type,), seed=seed)
    return [see(*dataset.draw(index)) for index in range(questions)]


def see(scene: Scene, question: Question) -> tuple[Hashable, Hashable]:
    """What the observer sees of a question's scene, and the answer in these terms.

    A shape or a color is told by its place in the order of how long each is seen, so that what is learned from one
    scene holds in another.
    """
    times, answer = frame_times(FRAMES), question.answers[0]
    if question.type == "again":
        return tuple(sorted(int(shape.visible(times).sum()) for shape in scene.shapes)), answer
    if question.type in ("first", "last"):
        frames = {shape.shape: int(shape.visible(times).sum()) for shape in scene.shapes}
        beside: dict[str, int] = {}
    else:
        shape, *others = (scene.shapes[place] for place in question.shapes)
        frames = _frames_by_color(shape, times)
        beside = _frames_by_color(shape, times[others[0].visible(times)]) if others else {}
    names = sorted(frames, key=lambda name: (-frames[name], name))  # by name, as the order of counting is that of time
    seen = tuple((frames[name], beside.get(name, 0)) for name in names)
    return seen, names.index(answer) if answer in names else answer


def _frames_by_color(shape: MovingShape, times: np.ndarray) -> dict[str, int]:
    """In how many frames, at `times` (T,), a shape is seen in each color."""
    return Counter(COLORS[number] for number in shape.color_numbers(times)[shape.visible(times)])


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Accuracy of an observer that sees frames without their order.")
    parser.add_argument("--questions", type=int, default=1000, help="a type")
    options = parser.parse_args(arguments)
    print("| type | unordered |\n|---|---:|")
    for type in TYPES:
        print(f"| {type} | {100 * measure_unordered(type, options.questions):.1f} % |", flush=True)


if __name__ == "__main__":
    main()
