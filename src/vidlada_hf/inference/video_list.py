"""A list of videos, what is asked about each, and which process answers it.

Nothing heavy is imported for a file, so that a mistake in it is told at once.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KEYS = ("id", "video", "question")
OTHER_KEYS = ("answer", "answers", "type")  # of files of questions for `vidlada bench`


@dataclass(frozen=True)
class Request:
    """A question about a video.

    Args:
        id: of the video in its list.
        video: path or address, as it can be read from here.
        question: the text.
    """

    id: str
    video: str
    question: str

    @property
    def key(self) -> tuple[str, str]:
        """What a list holds once."""
        return self.id, self.question


@dataclass(frozen=True)
class Process:
    """One of the processes that share a list.

    Args:
        rank: its number, from 0.
        world: how many there are.

    Raises:
        ValueError: a rank beyond them.
    """

    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ValueError(f"`RANK` ({self.rank}) must be from 0 up to `WORLD_SIZE` ({self.world}), without it.")

    @classmethod
    def current(cls, environment: Mapping[str, str] = os.environ) -> "Process":
        """This one, as torchrun says by `RANK` and `WORLD_SIZE`; the only one where it says nothing."""
        try:
            return cls(int(environment.get("RANK", 0)), int(environment.get("WORLD_SIZE", 1)))
        except ValueError as error:
            raise ValueError(f"`RANK` and `WORLD_SIZE` do not name one of several processes: {error}") from error

    def share(self, requests: Sequence[Request]) -> list[Request]:
        """What this process answers. An id belongs to one process, whatever else is in the list or is done already."""
        return [request for request in requests if stable_hash(request.id) % self.world == self.rank]


def stable_hash(text: str) -> int:
    """The same in every process and on every machine, unlike `hash`."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")


def list_requests(
    source: Path, questions: Sequence[str] = (), videos: Path | None = None, allow_urls: bool = False
) -> list[Request]:
    """Reads a list of videos.

    Args:
        source: one of
            - a folder, whose video files are taken, those of its folders too;
            - a JSONL file, each line {"video": path}, perhaps with "question", and with "id", else the path is the id;
            - a text file, each line a path.
        questions: to ask about each video whose record has none.
        videos: the folder that relative paths start from; None: that of the list.
        allow_urls: take http(s) addresses.

    Raises:
        FileNotFoundError: there is no such list, or no video of it.
        ValueError: a record that is none, without a question, or twice in the list; an address.
    """
    questions = list(dict.fromkeys(questions))
    if not all(question.strip() for question in questions):
        raise ValueError("A question is empty: write what to ask (`--question`).")
    folder = videos or (source if source.is_dir() else source.parent)
    requests: dict[tuple[str, str], Request] = {}
    for place, record in _read_records(source):
        id, video, asked = _parse(record, place, questions, allow_urls)
        path = video if "://" in video else str(folder / video)
        for question in asked:
            request = Request(id, path, question)
            if requests.setdefault(request.key, request) is not request:
                raise ValueError(
                    f"{place}: {question!r} is asked about {id!r} twice. Give each line an `id` of its own."
                )
    if not requests:
        raise ValueError(f"{source} holds no videos.")
    if not any("://" in request.video or os.path.exists(request.video) for request in requests.values()):
        first = next(iter(requests.values())).video
        raise FileNotFoundError(
            f"None of the videos of {source} is there, {first} first: say where they are (`--videos`)."
        )
    return list(requests.values())


def _read_records(source: Path) -> Iterator[tuple[str, Any]]:
    """The records of a list, each with its place for messages."""
    if source.is_dir():
        from ..processing.video_reading_vidlada import VIDEO_SUFFIXES

        suffixes = VIDEO_SUFFIXES | {".gif"}
        files = (path for path in source.rglob("*") if path.suffix.lower() in suffixes and path.name[0] != ".")
        yield from ((str(path), {"video": path.relative_to(source).as_posix()}) for path in sorted(files))
        return
    try:
        text = source.read_text(encoding="utf-8-sig")  # Windows' programs put a mark before the first line
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{source} is neither a folder of videos nor a list of them.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{source} is no text file: pass a folder, a .jsonl file, or a text file of paths.") from error
    is_json = source.suffix.lower() in (".jsonl", ".ndjson", ".json")
    for number, line in enumerate(text.split("\n"), 1):
        place = f"{source}, line {number}"
        if not line.strip():
            continue
        if not is_json:
            yield place, {"video": line.strip()}
            continue
        try:
            yield place, json.loads(line)
        except ValueError as error:
            raise ValueError(f"{place}: no JSON ({error}).") from error


def _parse(record: Any, place: str, questions: Sequence[str], allow_urls: bool) -> tuple[str, str, Sequence[str]]:
    """Id, video and questions of a record."""
    if not isinstance(record, dict) or "video" not in record or record.keys() - {*KEYS, *OTHER_KEYS}:
        got = sorted(record) if isinstance(record, dict) else type(record).__name__
        raise ValueError(f"{place}: a record has the keys `video` and perhaps `question` and `id`; got {got}.")
    for key in KEYS:
        if not (isinstance(record.get(key), str) and record[key].strip()) and key in record:
            raise ValueError(f"{place}: `{key}` must be a text that is not empty, got {record[key]!r}.")
    video: str = record["video"]
    asked = [record["question"]] if "question" in record else questions
    if not asked:
        raise ValueError(
            f"{place}: what is asked about {video!r}? Add `question`, or one for all videos (`--question`)."
        )
    if "://" in video and not allow_urls and not video.lower().startswith("file://"):
        raise ValueError(
            f"{place}: the video {video!r} is an address. Allow it (`--allow-urls`), or download the file."
        )
    return str(record.get("id", video)), video, asked


__all__ = ["Process", "Request", "list_requests", "stable_hash"]
