"""Accuracy from frames without their order: `python -m moving_shapes.baselines.unordered_frames`.

Shuffling the frames can cost a model at most what lies above this accuracy. The baseline counts: of each shape that the
question is about (of all, where it names none), in how many of eight frames it has which color, and in how many of
these the other shape of the question is visible too. Its answer is the one that is most frequent in the training split
for these counts. It does not use positions, so frames without their order may determine more than it knows.
"""

import argparse
from collections import Counter
from collections.abc import Hashable

import numpy as np

from ..dataset import MovingShapes
from ..questions import Question
from ..scenes.scene import COLORS, MovingShape, Scene, frame_times
from .answer_priors import learn

FRAMES = 8
TYPES = ("first", "last", "start_color", "end_color", "disappearance", "presence", "again", "when", "appearances")


def measure_unordered(type: str, questions: int = 1000, split: str = "test", seed: int = 0) -> float:
    """Its accuracy, 0..1, on that many questions of a type, learned on twice as many of the training split.

    Args:
        type: of `TYPES`.

    Raises:
        ValueError: for another type.
    """
    if type not in TYPES:
        raise ValueError(f"There is no baseline without the order of frames for {type!r}: pass one of {TYPES}.")
    known, _ = learn(_draw("train", type, 2 * questions, seed + 1))
    asked = _draw(split, type, questions, seed)
    return sum(given in known and known[given].most_common(1)[0][0] == answer for given, answer in asked) / questions


def _draw(split: str, type: str, questions: int, seed: int) -> list[tuple[Hashable, Hashable]]:
    dataset = MovingShapes(split, questions, FRAMES, types=(type,), seed=seed)
    return [observe(*dataset.draw(index)) for index in range(questions)]


def observe(scene: Scene, question: Question) -> tuple[Hashable, Hashable]:
    """The counts of frames for a question, and its answer in terms of these.

    A shape or a color is identified by its rank in the number of frames, so that what holds in one scene holds in
    others.
    """
    times, answer = frame_times(FRAMES), question.answers[0]
    if question.type == "again":
        return tuple(sorted(int(shape.visible(times).sum()) for shape in scene.shapes)), answer
    if question.type in ("first", "last"):
        frames = {shape.shape: int(shape.visible(times).sum()) for shape in scene.shapes}
        beside: dict[str, int] = {}
    else:
        shape, *others = (scene.shapes[index] for index in question.shapes)
        frames = _frames_by_color(shape, times)
        beside = _frames_by_color(shape, times[others[0].visible(times)]) if others else {}
    names = sorted(
        frames, key=lambda name: (-frames[name], name)
    )  # ties by name: the order of counting is that of time
    counts = tuple((frames[name], beside.get(name, 0)) for name in names)
    return counts, names.index(answer) if answer in names else answer


def _frames_by_color(shape: MovingShape, times: np.ndarray) -> dict[str, int]:
    """In how many of the frames at `times` (T,) a shape is visible in each color."""
    return Counter(COLORS[index] for index in shape.color_indices(times)[shape.visible(times)])


def main(arguments: list[str] | None = None) -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description="Accuracy from frames without their order, by question type.")
    parser.add_argument("--questions", type=int, default=1000, help="of each type")
    options = parser.parse_args(arguments)
    print("| type | unordered frames |\n|---|---:|")
    for type in TYPES:
        print(f"| {type} | {100 * measure_unordered(type, options.questions):.1f} % |", flush=True)


if __name__ == "__main__":
    main()
