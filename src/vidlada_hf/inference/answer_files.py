"""Answers by the thousand on disk, written by any number of processes, which need not know of each other.

Beside OUT.jsonl lies the folder OUT.jsonl.parts. A process only ever adds lines to a part file of its own there, so
what it wrote before it was killed stays, and nobody waits for anybody. OUT.jsonl is made of all parts, and may be made
again at any time: an answer is known by the id of its video and its question, and is in it once.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO
from uuid import uuid4

from ..evaluation.record import Record, check_writable, replace_file

Key = tuple[str, str]  # id and question
Line = dict[str, Any]


class AnswerFiles:
    """The files of one output.

    Args:
        path: OUT.jsonl. Each line has "id", "video", "question", "answer" and "error", one of the last two None.
        setup: what answers depend on, plain values. It is kept beside the parts.

    Raises:
        ValueError: answers that were made with another set-up, or nobody knows with which; a file that is none of
            answers.
        OSError: the path is that of a folder, or nothing can be written there.
    """

    def __init__(self, path: Path, setup: dict[str, Any]) -> None:
        self.path, self.parts = path, path.with_name(path.name + ".parts")
        check_writable(path)
        remedy = f"name another file (`--out`); to begin anew, delete {path} and {self.parts}"
        self.record = Record(self.parts / "settings.json", setup, remedy)
        self.read()
        if path.exists() and not self.record.path.exists():
            raise ValueError(f"{path} is there, but {self.record.path}, which says how it was made, is not: {remedy}.")

    def read(self) -> dict[Key, Line]:
        """All lines that are there. Of several about one question an answer is taken, or else the last error."""
        lines: dict[Key, Line] = {}
        parts = sorted(self.parts.glob("*.jsonl"), key=lambda part: (part.stat().st_mtime_ns, part.name))
        for file in [*([self.path] if self.path.exists() else []), *parts]:
            for line in _read(file, strict=file == self.path):
                key = line["id"], line["question"]
                if key not in lines or lines[key]["answer"] is None:
                    lines[key] = line
        return lines

    @contextmanager
    def open_part(self, rank: int, world: int) -> Iterator[TextIO]:
        """A new part file."""
        if not self.record.path.exists():
            self.record.save()
        name = f"{rank}-of-{world}-{uuid4().hex[:8]}.jsonl"
        with (self.parts / name).open("x", encoding="utf-8") as part:
            yield part

    def merge(self, order: Iterable[Key]) -> dict[Key, Line]:
        """Makes OUT.jsonl of all lines, and returns them: first those of a list in its order, then others.

        Several processes may do so at the same time: each looks again once it wrote the file, so that the last one to
        write it has seen what all others wrote before.
        """
        order, written = list(order), dict[Key, Line]()
        while written != (lines := self.read()):
            ordered = {key: lines[key] for key in order if key in lines} | lines
            replace_file(self.path, "".join(map(format_line, ordered.values())))
            written = lines
        return lines


def write_lines(part: TextIO, lines: Sequence[Line]) -> None:
    """Adds lines to a part file, and hands them to the system: a killed process loses none of them."""
    part.write("".join(map(format_line, lines)))
    part.flush()


def format_line(line: Line) -> str:
    """JSON and a line break. Characters are written as they are, unless they are halves of one (in names of files)."""
    text = json.dumps(line, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(line)
    return text + "\n"


def _read(file: Path, strict: bool) -> Iterator[Line]:
    """The lines of a file. Of a part the last one may have been cut off when its writer was killed: it is left out."""
    with file.open(encoding="utf-8", errors="replace") as opened:
        for number, text in enumerate(opened, 1):
            try:
                line = json.loads(text)
                line["id"], line["question"], line["answer"], line["error"]  # noqa: B018
            except (ValueError, KeyError, TypeError) as error:
                if strict:
                    raise ValueError(f"{file}, line {number}, is no answer: name another file (`--out`).") from error
                continue
            yield line


__all__ = ["AnswerFiles", "format_line", "write_lines"]
