"""The benchmark as a sequence: an index gives a video, a question and its answer, always the same ones.

An example follows from (seed, split, index) alone: its scene and its question do not depend on the number of sampled
frames (from eight on), on their size, or on the examples drawn before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidlada_hf.evaluation.questions import VideoQuestion

from .questions import BENCHMARK_TYPES, CHOICE_TYPES, YES_NO_TYPES, Question, ask, check_style, check_type
from .scenes.rendering import render, write_video
from .scenes.sampling import sample_scene
from .scenes.scene import Scene, frame_times
from .scenes.splits import Split, get_split

# type -> the kinds of scenes that it is asked about, with weights, and how many shapes they have (None: any number)
SCENES_OF_TYPE: dict[str, tuple[dict[str, float], tuple[int, ...] | None]] = {
    "color": (
        {"steady": 3, "arrivals": 3, "departures": 2, "color_changes": 1, "reappearances": 1, "sequences": 1},
        None,
    ),
    "shape": (
        {"steady": 3, "arrivals": 3, "departures": 2, "color_changes": 1, "reappearances": 1, "sequences": 1},
        None,
    ),
    "existence": (
        {
            "steady": 3,
            "arrivals": 3,
            "departures": 2,
            "color_changes": 2,
            "reappearances": 1,
            "sequences": 1,
            "groups": 1,
        },
        None,
    ),
    "counting": ({"steady": 2, "arrivals": 2, "departures": 1}, (1, 2, 3, 4)),
    "motion": ({"steady": 4, "arrivals": 2, "departures": 2, "color_changes": 1}, (1, 2, 3)),
    "first": ({"arrivals": 1}, (2, 3, 4)),
    "last": ({"arrivals": 4, "changes_and_arrivals": 1}, (2, 3)),
    "ordinal": ({"arrivals": 4, "steady": 1, "departures": 1}, (2, 3)),
    "start_color": ({"color_changes": 3, "changes_and_arrivals": 1}, None),
    "end_color": ({"color_changes": 3, "changes_and_arrivals": 1}, None),
    "change": ({"color_changes": 5, "changes_and_arrivals": 1, "steady": 2, "arrivals": 2}, (2, 3)),
    "disappearance": ({"departures": 2, "arrivals": 1}, (2, 3)),
    "presence": ({"arrivals": 2, "departures": 2, "reappearances": 1, "sequences": 1, "groups": 1}, None),
    "distinct": ({"sequences": 1}, (1, 2, 3, 4)),
    "again": ({"groups": 1}, None),
    "when": ({"changes_and_arrivals": 1}, None),
    "appearances": ({"reappearances": 1}, None),
    "mover": ({"steady": 3, "departures": 1, "color_changes": 1}, (2, 3)),
    "choice": ({"steady": 2, "arrivals": 3, "departures": 1, "color_changes": 3, "changes_and_arrivals": 1}, (2, 3)),
    "caption": (
        {
            "steady": 3,
            "arrivals": 2,
            "departures": 2,
            "color_changes": 2,
            "changes_and_arrivals": 1,
            "reappearances": 1,
            "many_events": 2,
        },
        None,
    ),
    "detail": (
        {"steady": 2, "arrivals": 3, "departures": 2, "color_changes": 2, "reappearances": 1, "many_events": 2},
        None,
    ),
    "position": ({"steady": 2, "arrivals": 1, "departures": 1}, None),
    "direction": ({"steady": 2, "arrivals": 1, "departures": 1}, None),
    "pick": ({"steady": 2, "arrivals": 3, "departures": 1}, (2, 3)),
}

ENOUGH_FRAMES = 8  # evenly sampled, they determine every answer
_ATTEMPTS = 1000


@dataclass(frozen=True)
class Example:
    """A video and a question about it.

    Args:
        frames: uint8 RGB (T, size, size, 3); None where the video is a file.
        path: of the H.264 file; None where the video is an array.
        question: its text, in the style of the data set.
        answer: in a few words.
        type: of `questions.QUESTION_TYPES`.
        details: both wordings, the facts of the answer and the shapes that it is about.
        scene: that the video shows.
    """

    frames: np.ndarray | None
    path: Path | None
    question: str
    answer: str
    type: str
    details: Question
    scene: Scene

    def as_question(self) -> VideoQuestion:
        """The example as the package's evaluation takes it; both wordings of the answer are right."""
        video = self.frames if self.path is None else self.path
        assert video is not None
        return VideoQuestion(video, self.question, tuple(dict.fromkeys(self.details.answers)), self.type)


class MovingShapes(Sequence[Example]):
    """The benchmark, or a part of it.

    Args:
        split: "train", "validation" or "test".
        length: how many examples; the first ones are the same for every length.
        num_frames: how many evenly sampled frames the arrays hold. Eight or more determine every answer; with fewer,
            only scenes and questions that they determine are drawn, and some types have none.
        types: question types in turn: example `i` is of type `types[i % len(types)]`, so all are as frequent. Repeat
            a type to give it more weight.
        size: height and width in pixels.
        question_style: "compact" (a few words) or "sentence".
        video_folder: where each video is written as an H.264 file, once; its path then stands in for the array.
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
        self.split, self.length, self.types, self.size, self.seed = get_split(split), length, tuple(types), size, seed
        self.question_style = question_style
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
        text = question.question(self.question_style)
        return Example(frames, path, text, question.answer(), question.type, question, scene)

    def __iter__(self) -> Iterator[Example]:
        return (self[i] for i in range(self.length))

    def draw(self, index: int) -> tuple[Scene, Question]:
        """The scene and the question of an example, without its frames."""
        index = self._check(index)
        rng = self._generator(index)
        return draw_question(rng, self.split, self.types[index % len(self.types)], self.times)

    def _check(self, index: int) -> int:
        if not -self.length <= index < self.length:
            raise IndexError(f"There is no example {index}: the benchmark was made with `length={self.length}`.")
        return index % self.length

    def _generator(self, index: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, self.split.number, index))))


def draw_question(rng: np.random.Generator, split: str | Split, type: str, times: np.ndarray) -> tuple[Scene, Question]:
    """Draws a scene and a question of a type about it, whose answer frames at `times` (T,) determine.

    Raises:
        ValueError: for an unknown type, or one that cannot be answered from so few frames.
    """
    kinds, counts = SCENES_OF_TYPE[check_type(type)]
    names, weights = list(kinds), np.array(list(kinds.values()), float)
    coin = float(rng.random())  # the same for each attempt, so that neither answer is preferred
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


__all__ = ["ENOUGH_FRAMES", "SCENES_OF_TYPE", "Example", "MovingShapes", "draw_question"]
