"""Answers that a run has so far, on disk as they come: one that was interrupted goes on with them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def answer_key(about: Mapping[str, Any]) -> str:
    """Digits that stand for all that an answer depends on: plain values, by name."""
    text = json.dumps(about, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class AnswerLog:
    """A folder with a JSON-lines file for each process; each reads all of them when it starts.

    Args:
        folder: made where it is missing; None: nothing is kept.
        rank: of this process.
    """

    def __init__(self, folder: str | Path | None, rank: int = 0) -> None:
        self._known: dict[str, Any] = {}
        self._path = None if folder is None else Path(folder) / f"answers.{rank}.jsonl"
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._path.parent.glob("answers.*.jsonl")):
            for line in path.read_text(encoding="utf-8").split("\n"):
                try:
                    record = json.loads(line)
                    self._known[record["key"]] = record["answer"]
                except (ValueError, KeyError, TypeError):
                    continue  # the line that a killed run was writing

    def get(self, key: str) -> Any:
        """The answer, or None."""
        return self._known.get(key)

    def add(self, key: str, answer: Any, **about: Any) -> None:
        """Keeps an answer, a plain value, with what a reader of the file may want to know."""
        self._known[key] = answer
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:  # a line break first: what a kill cut off stays alone
                file.write("\n" + json.dumps({"key": key, **about, "answer": answer}))


__all__ = ["AnswerLog", "answer_key"]
