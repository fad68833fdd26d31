"""A JSON file of results that an interrupted run goes on with."""

import json
import os
from pathlib import Path
from typing import Any
from uuid import uuid4


class Record:
    """Results, and what they depend on.

    Args:
        path: the file. Its folder is made.
        setup: what the results depend on, plain values.
        remedy: what to do about a file of another set-up.

    Attributes:
        data: what the file holds; changed in place, then saved.

    Raises:
        ValueError: the file's results came from another set-up; the message says where they differ.
        OSError: the path is that of a folder, or nothing can be written there.
    """

    def __init__(
        self, path: Path, setup: dict[str, Any], remedy: str = "pass another file, or delete this one"
    ) -> None:
        check_writable(path)
        self.path = path
        self.data: dict[str, Any] = {"setup": json.loads(json.dumps(setup))}
        if not path.exists():
            return
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            stored_setup = stored["setup"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no file of results: {remedy}.") from error
        for name, value in self.data["setup"].items():
            if stored_setup.get(name) != value:
                raise ValueError(
                    f"{path} was made with `{name}` {stored_setup.get(name)!r}, and now it is {value!r}: {remedy}."
                )
        self.data = stored

    def save(self) -> None:
        """Writes the file anew; it is never half there."""
        replace_file(self.path, json.dumps(self.data, indent=1, ensure_ascii=False) + "\n")


def check_writable(path: Path) -> None:
    """Raises an OSError where no such file can be written, before there is anything to write."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file.")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise OSError(f"Nothing can be written to {folder}: name another file.")


def replace_file(path: Path, text: str) -> None:
    """Writes a file, whose folder is made, so that it is never half there, whichever processes write it at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid4().hex[:8]}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


__all__ = ["Record", "check_writable", "replace_file"]
