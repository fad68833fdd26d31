"""The benchmark as a sequence: an index gives a video, a question and its answer, always the same ones.

Everything follows from (seed, split, index): the scene and the question do not depend on how many frames are sampled
(from eight on), on the picture's size, or on what was drawn before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .questions import BENCHMARK_TYPES, CHOICE_TYPES, YES_NO_TYPES, Question, ask, check_style, check_type
from .scenes.cells import Cells, label_cells
from .scenes.rendering import render, write_video
from .scenes.sampling import sample_scene
from .scenes.scene import Scene, frame_times
from .scenes.splits import Split, get_split

# type -> the kinds of scenes that it is asked about, with weights, and how many shapes they have (None: as it comes)
SCENES_OF_TYPE: dict[str, tuple[dict[str, float], tuple[int, ...] | None]] = {
    "color": ({"steady": 3, "arrivals": 3, "departures": 2, "turns": 1, "blinks": 1, "reruns": 1}, None),
    "shape": ({"steady": 3, "arrivals": 3, "departures": 2, "turns": 1, "blinks": 1, "reruns": 1}, None),
    "existence": (
        {"steady": 3, "arrivals": 3, "departures": 2, "turns": 2, "blinks": 1, "reruns": 1, "groups": 1},
        None,
    ),
    "counting": ({"steady": 2, "arrivals": 2, "departures": 1}, (1, 2, 3, 4)),
    "motion": ({"steady": 4, "arrivals": 2, "departures": 2, "turns": 1}, (1, 2, 3)),
    "first": ({"arrivals": 1}, (2, 3, 4)),
    "last": ({"arrivals": 4, "meetings": 1}, (2, 3)),
    "ordinal": ({"arrivals": 4, "steady": 1, "departures": 1}, (2, 3)),
    "start_color": ({"turns": 3, "meetings": 1}, None),
    "end_color": ({"turns": 3, "meetings": 1}, None),
    "change": ({"turns": 5, "meetings": 1, "steady": 2, "arrivals": 2}, (2, 3)),
    "disappearance": ({"departures": 2, "arrivals": 1}, (2, 3)),
    "presence": ({"arrivals": 2, "departures": 2, "blinks": 1, "reruns": 1, "groups": 1}, None),
    "distinct": ({"reruns": 1}, (1, 2, 3, 4)),
    "again": ({"groups": 1}, None),
    "when": ({"meetings": 1}, None),
    "appearances": ({"blinks": 1}, None),
    "mover": ({"steady": 3, "departures": 1, "turns": 1}, (2, 3)),
    "choice": ({"steady": 2, "arrivals": 3, "departures": 1, "turns": 3, "meetings": 1}, (2, 3)),
    "caption": (
        {"steady": 3, "arrivals": 2, "departures": 2, "turns": 2, "meetings": 1, "blinks": 1, "stories": 2},
        None,
    ),
    "detail": ({"steady": 2, "arrivals": 3, "departures": 2, "turns": 2, "blinks": 1, "stories": 2}, None),
    "position": ({"steady": 2, "arrivals": 1, "departures": 1}, None),
    "direction": ({"steady": 2, "arrivals": 1, "departures": 1}, None),
    "pick": ({"steady": 2, "arrivals": 3, "departures": 1}, (2, 3)),
}

ENOUGH_FRAMES = 8  # evenly sampled, they tell every answer
_ATTEMPTS = 1000


@dataclass(frozen=True)
class Example:
    """A video and a question about it.

    Args:
        frames: uint8 RGB (T, size, size, 3); None where the video is a file.
        path: of the H.264 file; None where the video is an array.
        question, answer: texts of the asked styles.
        type: of `questions.QUESTION_TYPES`.
        details: both wordings, the facts of the answer and what it is about.
        scene: the truth.
    """

    frames: np.ndarray | None
    path: Path | None
    question: str
    answer: str
    type: str
    details: Question
    scene: Scene


@dataclass(frozen=True)
class Lesson:
    """A video with several questions, for training: frames uint8 (T, size, size, 3) and the labels of their cells."""

    frames: np.ndarray
    cells: Cells
    questions: tuple[Question, ...]
    scene: Scene


class MovingShapes(Sequence[Example]):
    """The benchmark, or a part of it.

    Args:
        split: "train", "validation" or "test".
        length: how many examples; the first ones are the same for every length.
        num_frames: how many evenly sampled frames the arrays show. From eight on all questions are determined; with
            fewer, scenes and questions are drawn that are, and some types have none.
        types: question types in turn: example `i` is of type `types[i % len(types)]`, so all are as frequent. Repeat
            a type to give it more weight.
        size: height and width in pixels.
        question_style, answer_style: "compact" (a few words) or "sentence".
        video_folder: write an H.264 file a scene there, once, and give its path instead of an array.
        seed: another benchmark of the same kind.

    Raises:
        ValueError: for an option that makes no sense, naming it.
    """

    def __init__(
        self,
        split: str,
        length: int = 1000,
        num_frames: int = 8,
        types: Sequence[str] = BENCHMARK_TYPES,
        size: int = 64,
        question_style: str = "sentence",
        answer_style: str = "compact",
        video_folder: Path | str | None = None,
        seed: int = 0,
    ) -> None:
        if length < 0 or seed < 0:
            raise ValueError(f"`length={length}` and `seed={seed}` must not be negative.")
        if not types:
            raise ValueError("`types` is empty: pass at least one question type.")
        for type in types:
            check_type(type)
        check_style(question_style)
        check_style(answer_style)
        self.split, self.length, self.types, self.size, self.seed = get_split(split), length, tuple(types), size, seed
        self.question_style, self.answer_style = question_style, answer_style
        self.times = frame_times(num_frames)
        self.video_folder = None if video_folder is None else Path(video_folder)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index):  # type: ignore[no-untyped-def, override]
        """Example `index`, or the list of those of a slice; IndexError beyond the last."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.length))]
        index = self._check(index)
        scene, question = self.draw(index)
        frames = path = None
        if self.video_folder is None:
            frames = render(scene, self.times, self.size)
        else:
            path = self.video_folder / f"{self.split.name}-{self.seed}-{index:06d}-{question.type}-{self.size}.mp4"
            if not path.is_file():
                write_video(scene, path, self.size)
        text, answer = question.question(self.question_style), question.answer(self.answer_style)
        return Example(frames, path, text, answer, question.type, question, scene)

    def __iter__(self) -> Iterator[Example]:
        return (self[i] for i in range(self.length))

    def draw(self, index: int) -> tuple[Scene, Question]:
        """The scene and the question of an example, without its pictures."""
        index = self._check(index)
        rng = self._generator(index)
        return draw_question(rng, self.split, self.types[index % len(self.types)], self.times)

    def lesson(self, index: int, questions: int = 20, grid: int = 4) -> Lesson:
        """The scene of example `index` with up to that many different questions of `types`, its own first.

        A scene of few shapes has fewer questions. Types that more kinds of scenes answer come more often here than in
        the examples.
        """
        index = self._check(index)
        rng = self._generator(index)
        scene, first = draw_question(rng, self.split, self.types[index % len(self.types)], self.times)
        asked = {first.questions[0]: first}
        for _ in range(3 * questions):
            if len(asked) >= questions:
                break
            question = ask(scene, self.types[rng.integers(len(self.types))], rng)
            if question is not None and question.is_determined(self.times):
                asked.setdefault(question.questions[0], question)
        frames = render(scene, self.times, self.size)
        return Lesson(frames, label_cells(scene, self.times, grid), tuple(asked.values()), scene)

    def _check(self, index: int) -> int:
        if not -self.length <= index < self.length:
            raise IndexError(f"There is no example {index}: the benchmark was made with `length={self.length}`.")
        return index % self.length

    def _generator(self, index: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, self.split.number, index))))


def draw_question(rng: np.random.Generator, split: str | Split, type: str, times: np.ndarray) -> tuple[Scene, Question]:
    """Draws a scene and a question of a type about it whose answer can be seen at `times` (T,).

    Raises:
        ValueError: for an unknown type, or one that cannot be answered from so few frames.
    """
    kinds, counts = SCENES_OF_TYPE[check_type(type)]
    names, weights = list(kinds), np.array(list(kinds.values()), float)
    coin = float(rng.random())  # kept while scenes are drawn again, so that neither answer is preferred
    for _ in range(_ATTEMPTS):
        kind = names[rng.choice(len(names), p=weights / weights.sum())]
        scene = sample_scene(rng, split, kind, None if counts is None else int(counts[rng.integers(len(counts))]))
        question = ask(scene, type, rng, coin if type in YES_NO_TYPES or type in ("change", *CHOICE_TYPES) else None)
        if question is not None and (len(times) >= ENOUGH_FRAMES or question.is_determined(times)):
            return scene, question
    raise ValueError(
        f"No question of type {type!r} can be answered from {len(times)} frames: sample more of them "
        f"({ENOUGH_FRAMES} are always enough), or leave the type out."
    )


__all__ = ["SCENES_OF_TYPE", "Example", "Lesson", "MovingShapes", "draw_question"]
