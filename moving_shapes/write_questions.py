"""Writes the benchmark as files: `python -m moving_shapes.write_questions FOLDER --split test --count 420`.

FOLDER then holds an mp4 file for each question and questions.jsonl, which names them, so that

    vidlada bench --questions FOLDER/questions.jsonl

measures decoding on the benchmark, and so do the tasks of lmms-eval whose YAML files are beside it:

    vidlada eval --tasks moving_shapes --include FOLDER
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from vidlada_hf.evaluation.questions import VideoQuestion

from .dataset import ENOUGH_FRAMES, MovingShapes
from .lmms_task import write_task
from .questions import BENCHMARK_TYPES
from .scenes.splits import SPLITS


def write_questions(questions: Iterable[VideoQuestion], path: Path) -> None:
    """Writes a line {"video", "question", "answers", "type"} for each question; paths of videos are relative to the
    file's folder, where the videos must be.

    Raises:
        ValueError: a video that is no file of that folder.
    """
    lines = []
    for question in questions:
        if not isinstance(question.video, Path) or not question.video.is_relative_to(path.parent):
            raise ValueError(f"The video of {question.question!r} must be a file in {path.parent}.")
        video = question.video.relative_to(path.parent).as_posix()
        record = {"video": video, "question": question.question, "answers": question.answers, "type": question.type}
        lines.append(json.dumps(record) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Writes the files; videos that are there already stay."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--count", type=int, default=420, help="questions, of all types in turn")
    parser.add_argument("--types", nargs="+", default=BENCHMARK_TYPES, metavar="TYPE", help="all of them by default")
    parser.add_argument(
        "--frames", type=int, default=ENOUGH_FRAMES, help="that each answer follows from; more never hurt"
    )
    parser.add_argument("--size", type=int, default=64, help="height and width of the videos in pixels")
    parser.add_argument("--seed", type=int, default=0, help="another benchmark of the same kind")
    given = parser.parse_args(arguments)
    examples = MovingShapes(
        given.split,
        given.count,
        num_frames=given.frames,
        types=given.types,
        size=given.size,
        video_folder=given.folder,
        seed=given.seed,
    )
    given.folder.mkdir(parents=True, exist_ok=True)
    path = given.folder / "questions.jsonl"
    write_questions((example.as_question() for example in tqdm(examples, unit="video")), path)
    write_task(path)
    print(path)


if __name__ == "__main__":
    main()


__all__ = ["write_questions"]
