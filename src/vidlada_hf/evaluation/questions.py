"""Questions about videos to measure on: moving shapes, or a user's own from a JSONL file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moving_shapes import MovingShapes, is_right

KEYS = ("video", "question", "answer", "type")


@dataclass(frozen=True)
class Asked:
    """A question of a user's own; it can stand where a moving-shapes `Example` can.

    Args:
        path: of the video.
        question: the text.
        answer: the expected text; None where it is not known.
        type: what the question is counted under.
        frames, details: always None, as the video is a file and nothing else is known.
    """

    path: Path
    question: str
    answer: str | None = None
    type: str = "all questions"
    frames: None = None
    details: None = None


def load_questions(source: Path | None, count: int | None, num_frames: int, videos: Path | None = None) -> list[Any]:
    """The questions of a file, or of the moving shapes' test split, all types in turn.

    Args:
        source: a JSONL file, each line {"video": path, "question": text} and, where known, "answer" and "type". None:
            moving shapes.
        count: the first so many; None: all of a file, 42 of moving shapes.
        num_frames: that the moving shapes are drawn for.
        videos: the folder that paths in the file start from; None: the file's own.

    Returns:
        `Asked`, or `Example`.

    Raises:
        ValueError: a line that is no such record, with its number; a video that is not there; no questions.
    """
    if count is not None and count < 1:
        raise ValueError(f"At least one question must be asked, got {count}.")
    if source is None:
        return list(MovingShapes("test", count or 42, num_frames))
    folder = source.parent if videos is None else videos
    lines = [(i, line) for i, line in enumerate(source.read_text(encoding="utf-8").split("\n"), 1) if line.strip()]
    found = [_read(line, folder, f"{source}, line {number}") for number, line in lines[:count]]
    if not found:
        raise ValueError(f"{source} holds no questions.")
    return found


def _read(line: str, folder: Path, place: str) -> Asked:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{place}: no JSON ({error}).") from error
    if not isinstance(record, dict) or not {"video", "question"} <= record.keys() or record.keys() - set(KEYS):
        told = sorted(record) if isinstance(record, dict) else type(record).__name__
        raise ValueError(
            f"{place}: wanted are the keys `video` and `question`, and perhaps `answer` and `type`: {told}."
        )
    record = {key: value for key, value in record.items() if value is not None or key in KEYS[:2]}
    for key, value in record.items():
        if not isinstance(value, str):
            raise ValueError(f"{place}: `{key}` must be a text, got {value!r}.")
    path = folder / record.pop("video")
    if not path.exists():
        raise ValueError(f"{place}: there is no video {path}.")
    return Asked(path, **record)


def judge(item: Any, text: str) -> bool | None:
    """Whether a text is the answer of a question; None where that is not known.

    Moving shapes know two wordings of each answer; otherwise the words must be the same, whatever their case, the
    blanks between them and a full stop at the end.
    """
    if item.details is not None:
        return is_right(item.details, text)
    return None if item.answer is None else _plain(text) == _plain(item.answer)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".").strip()


def judge_all(items: Sequence[Any], texts: Sequence[str]) -> list[bool] | None:
    """For each question; None unless all answers are known."""
    verdicts = [judge(item, text) for item, text in zip(items, texts, strict=True)]
    return None if None in verdicts else [bool(verdict) for verdict in verdicts]


__all__ = ["Asked", "judge", "judge_all", "load_questions"]
