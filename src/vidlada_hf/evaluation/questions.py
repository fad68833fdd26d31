"""Questions about videos, and whether a text answers them: the shipped ones, a JSONL file, `datasets` data, or code."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from ..hub.locate import EMBEDDED_CHECKPOINT
from ..processing.addresses_vidlada import AllowedAddress, is_address
from ..processing.user_text_vidlada import check_characters

KEYS = ("video", "question", "answer", "answers", "type")
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class VideoQuestion:
    """A question about a video.

    Args:
        video: a file, its content, uint8 frames (frames, height, width, 3), or an address that may be fetched.
        question: the text.
        answers: texts, any of which is right; empty where the answer is not known.
        type: the heading that the question is counted under.
    """

    video: Path | bytes | np.ndarray | AllowedAddress
    question: str
    answers: tuple[str, ...] = ()
    type: str = "all questions"

    def messages(self, answer: str | None = None) -> list[dict[str, Any]]:
        """One conversation for `processor.apply_chat_template`, with the assistant's turn where `answer` is given."""
        video = str(self.video) if isinstance(self.video, Path) else self.video
        content = [{"type": "video", "video": video}, {"type": "text", "text": self.question}]
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
        return messages


def load_questions(
    source: Path | str | None = None, count: int | None = None, videos: Path | None = None, allow_urls: bool = False
) -> list[VideoQuestion]:
    """Reads questions.

    Args:
        source: where they are.
            - None: the questions about the clip that comes with the embedded checkpoint.
            - A JSONL file, each line {"video": path, "question": text} and, where known, "answer" (a text) or "answers"
              (a list of texts, any of which is right) and "type".
            - Data of `datasets` with columns of these names: a .parquet file, a folder, or an id on the Hub. Of several
              splits, "test" or else "validation" is read.
            - "module:function": called without arguments, it returns `VideoQuestion`s.
        count: the first so many; None: all.
        videos: the folder that relative paths start from; None: that of the file, the working directory for the Hub.
        allow_urls: take records whose video is an http(s) address, which is fetched when the question is asked.

    Raises:
        ValueError: a record that is no question, or whose video is not there (the message names file and line); no
            questions; no such data set.
        FileNotFoundError: no such file.
    """
    if count is not None and count < 1:
        raise ValueError(f"At least one question must be asked, got {count}.")
    if source is None:
        source = EMBEDDED_CHECKPOINT / "demo" / "questions.jsonl"
    path = Path(source)
    if _FUNCTION.fullmatch(str(source)) and not path.exists():
        questions = _call(str(source))[:count]
    elif path.suffix in (".jsonl", ".ndjson", ".json") or (path.is_file() and path.suffix != ".parquet"):
        folder = path.parent if videos is None else videos
        questions = [_parse(record, folder, location, allow_urls) for location, record in _read_lines(path, count)]
    else:
        local = path if path.is_dir() else path.parent if path.is_file() else Path()
        folder = local if videos is None else videos
        records = _read_dataset(path, str(source), count)
        questions = [_parse(record, folder, location, allow_urls) for location, record in records]
    if not questions:
        raise ValueError(f"{source} holds no questions.")
    return questions


def _call(name: str) -> list[VideoQuestion]:
    module, _, attribute = name.partition(":")
    try:
        function = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"There is no function {name!r} to take questions from: {error}.") from error
    questions = function() if _takes_no_arguments(function) else None
    if not isinstance(questions, Sequence) or not all(isinstance(each, VideoQuestion) for each in questions):
        raise ValueError(f"{name!r} must be a function without arguments that returns a list of VideoQuestions.")
    return list(questions)


def _takes_no_arguments(function: Any) -> bool:
    try:
        signature(function).bind()
    except (TypeError, ValueError):  # it needs some, or it is no function that can be asked
        return False
    return True


def _read_lines(path: Path, count: int | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of a JSONL file, each with its location."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text file ({error}): pass a .jsonl or .parquet file.") from error
    lines = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    for number, line in lines[:count]:
        location = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{location}: no JSON ({error}).") from error
        if not isinstance(record, dict) or record.keys() - set(KEYS):
            raise _wrong_keys(location, record)
        yield location, record


def _read_dataset(path: Path, source: str, count: int | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of `datasets` data without other columns, each with its location."""
    import datasets

    try:
        if path.suffix == ".parquet":
            table = datasets.Dataset.from_parquet(source)
        elif any((path / name).is_file() for name in ("dataset_info.json", "state.json", "dataset_dict.json")):
            table = datasets.load_from_disk(source)
        else:
            table = datasets.load_dataset(source)
    except (datasets.exceptions.DatasetsError, ConnectionError, OSError, ValueError) as error:
        raise ValueError(
            f"{source!r} cannot be read: pass a .jsonl or .parquet file, a folder or an id on the Hub of `datasets` "
            f"data, or 'module:function' ({error})."
        ) from error
    if isinstance(table, datasets.DatasetDict):
        split = next((name for name in ("test", "validation") if name in table), next(iter(table)))
        table = table[split]
    for column, feature in table.features.items():
        if isinstance(feature, datasets.Video):  # the processor reads videos, not `datasets`
            table = table.cast_column(column, datasets.Video(decode=False))
    table = table.select_columns([name for name in KEYS if name in table.column_names])
    for i, record in enumerate(table.take(len(table) if count is None else min(count, len(table))), 1):
        yield f"{source}, record {i}", record


def _parse(record: dict[str, Any], folder: Path, location: str, allow_urls: bool) -> VideoQuestion:
    if not {"video", "question"} <= record.keys():
        raise _wrong_keys(location, record)
    for key in ("question", "answer", "type"):
        value = record.get(key)
        if not isinstance(value, str) and (value is not None or key == "question"):
            raise ValueError(f"{location}: `{key}` must be a text, got {value!r}.")
        check_characters(value or "", f"{location}: `{key}`")
    answers = record.get("answers")
    if answers is None:
        answers = [] if record.get("answer") is None else [record["answer"]]
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise ValueError(f"{location}: `answers` must be a list of texts, got {answers!r}.")
    video = _find_video(record["video"], folder, location, allow_urls)
    return VideoQuestion(video, record["question"], tuple(answers), record.get("type") or VideoQuestion.type)


def _find_video(value: Any, folder: Path, location: str, allow_urls: bool) -> Path | bytes | AllowedAddress:
    """The file that a record names, its address, or the content that a column of videos holds."""
    if isinstance(value, dict):  # of `datasets.Video`
        if value.get("bytes") is not None:
            return value["bytes"]
        value = value.get("path")
    if not isinstance(value, str):
        raise ValueError(f"{location}: `video` must be a text, got {value!r}.")
    if is_address(value):
        if not allow_urls:
            raise ValueError(
                f"{location}: the video {value!r} is an address, and questions fetch nothing by themselves. Allow it"
                " (`allow_urls=True`, `--allow-urls`), or download the file and name its path."
            )
        return AllowedAddress(value)
    path = folder / value
    if not path.exists():
        raise ValueError(f"{location}: there is no video {path}.")
    return path


def _wrong_keys(location: str, record: Any) -> ValueError:
    got = sorted(record) if isinstance(record, dict) else type(record).__name__
    return ValueError(
        f"{location}: a question has the keys `video` and `question`, and perhaps `answer` or `answers`, and `type`; "
        f"got {got}."
    )


def is_right(question: VideoQuestion, text: str) -> bool | None:
    """Whether a text has the words of one of the answers, whatever their case, the blanks between them and a full stop
    at the end; None where the answer is not known."""
    return _normalize(text) in map(_normalize, question.answers) if question.answers else None


def sentence_share(question: VideoQuestion, text: str) -> float | None:
    """The share of an answer's sentences that a text has, 0..1, out of all expected, or all said where those are more.

    Sentences end with full stops; repeated ones count once. Of several answers the best counts. None where the answer
    is not known.
    """
    said = _sentences(text)
    shares = []
    for answer in question.answers:
        expected = _sentences(answer)
        shares.append(len(said & expected) / max(len(said), len(expected), 1))
    return max(shares, default=None)


def are_right(questions: Sequence[VideoQuestion], texts: Iterable[str]) -> list[bool] | None:
    """`is_right` for each question; None unless all answers are known."""
    verdicts = [is_right(question, text) for question, text in zip(questions, texts, strict=True)]
    return None if None in verdicts else [bool(verdict) for verdict in verdicts]


def score_answer(question: VideoQuestion, text: str) -> float | None:
    """0..1: `sentence_share` where the answer has several sentences, otherwise 1.0 or 0.0 by `is_right`."""
    if any(len(_sentences(answer)) > 1 for answer in question.answers):
        return sentence_share(question, text)
    right = is_right(question, text)
    return None if right is None else float(right)


def _normalize(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".").strip()


def _sentences(text: str) -> set[str]:
    return {sentence.strip() for sentence in _normalize(text).split(".") if sentence.strip()}


__all__ = ["VideoQuestion", "are_right", "is_right", "load_questions", "score_answer", "sentence_share"]
