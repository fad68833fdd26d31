"""Users' conversations: records in files or on the Hub, checked once and kept compactly.

Everything that is wrong with a text is reported while its file is read, before a model is loaded. Videos are only named
here; `videos` reads them when they are needed.
"""

import hashlib
import json
import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset
from tqdm import tqdm

from ...processing.addresses_vidlada import protocol_of
from ...processing.user_text_vidlada import check_characters
from .collator import RecordError, check_answers

ROLES = ("system", "user", "assistant")
PLACEHOLDERS = ("<image>", "<video>")
# What a chat template writes. In a text it is text, which a data set of rendered prompts did not mean.
WRITTEN_BY_TEMPLATES = (*PLACEHOLDERS, "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")

logger = logging.getLogger(__name__)


class Records(Dataset):
    """Conversations, each with where it comes from.

    Args:
        conversations: pairs of an origin ("FILE, record 3") and messages in the chat template's form.
        what: they are called in the message for there being none.

    Items are `{"messages": [...], "origin": str}`. A text that is alone in its message becomes a list of one part.
    Attributes: `characters`, int64 (records,), of all texts of each; `videos`, the paths of each; `fingerprint`, which
    other records, or these in another order, do not have.

    Raises:
        RecordError: an unknown role, no answer at the end, an empty one, or not exactly one video.
    """

    def __init__(self, conversations: Iterable[tuple[str, Sequence[dict[str, Any]]]], what: str) -> None:
        from datasets import Dataset as Table  # a table's texts are no Python objects: workers share their memory

        columns: dict[str, list[str]] = {"messages": [], "origin": [], "video": []}
        digest, odd = hashlib.sha256(), []
        for origin, messages in conversations:
            cleaned = check_messages(origin, messages)
            columns["messages"].append(json.dumps(cleaned, ensure_ascii=False))
            columns["origin"].append(origin)
            digest.update(columns["messages"][-1].encode() + b"\n")
            columns["video"].append(videos_of(cleaned)[0])
            odd += [origin] if any(token in columns["messages"][-1] for token in WRITTEN_BY_TEMPLATES) else []
        if odd:
            logger.warning(
                "%d records hold such as %s in a text, which is learned as text; the first is %s.",
                *(len(odd), " or ".join(WRITTEN_BY_TEMPLATES[-2:]), odd[0]),
            )
        if not columns["origin"]:
            raise ValueError(f"{what} holds no records: add some, or leave it out.")
        self.characters = np.array([len(text) for text in columns["messages"]])
        self.fingerprint = digest.hexdigest()
        self.table = Table.from_dict(columns)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.table[index]
        return {"messages": json.loads(row["messages"]), "origin": row["origin"]}

    @property
    def videos(self) -> list[str]:
        """The path or address of each record's video."""
        return list(self.table["video"])


def check_messages(origin: str, messages: Any) -> list[dict[str, Any]]:
    """The messages with all contents as lists of parts; see `Records` for what is refused."""
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise RecordError(f"{origin} holds no messages but {str(messages)[:80]!r}: pass a list of at least two.")
    cleaned = []
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ROLES or "content" not in message:
            known = ", ".join(ROLES)
            raise RecordError(
                f"{origin} has a message that is no `role` (of {known}) with a `content`: {str(message)[:80]!r}."
            )
        cleaned.append({"role": message["role"], "content": list_parts(origin, message["content"])})
    check_answers(cleaned, origin)
    if (count := len(videos_of(cleaned))) != 1:
        remedy = "add one, or leave the record out" if count == 0 else "split the record"
        raise RecordError(f"{origin} has {count or 'no'} videos where one is needed: {remedy}.")
    if any(message["role"] != "user" and videos_of([message]) for message in cleaned):
        raise RecordError(f"{origin} has its video in a message that is not the user's: move it to the question.")
    for part in (part for message in cleaned for part in message["content"]):
        check_text(origin, part[part["type"]])
    return cleaned


def list_parts(origin: str, content: Any) -> list[dict[str, str]]:
    """A content as parts with only the keys that they need (a table's columns give every part all keys)."""
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    parts = []
    for part in content if isinstance(content, Sequence) else [content]:
        kind = part.get("type") if isinstance(part, dict) else None
        values = {"text": ("text",), "video": ("video", "path", "url")}.get(str(kind), ())
        value = next((part[key] for key in values if part.get(key) is not None), None)
        if kind is None or not isinstance(value, str):
            raise RecordError(f"{origin} has a part that is neither a text nor a video's path: {str(part)[:80]!r}.")
        if kind == "video":
            check_keys(origin, part, ("type", *values))
        parts.append({"type": kind, kind: value})
    return parts


def check_keys(origin: str, part: dict[str, Any], known: Sequence[str]) -> None:
    """Raises a RecordError for what a video's part says besides where it is: nothing of it would have an effect."""
    if other := [key for key, value in part.items() if value is not None and key not in known]:
        raise RecordError(
            f"{origin} has {', '.join(map(repr, other))} beside its video, which holds for none of a data set: leave it"
            " out, and set options in the recipe (`processor_options`)."
        )


def check_text(origin: str, text: str) -> None:
    """Raises a RecordError for a text, or a path, that holds half a character (a lone surrogate)."""
    try:
        check_characters(text, origin)
    except ValueError as error:
        raise RecordError(str(error)) from error


def videos_of(messages: Sequence[dict[str, Any]]) -> list[str]:
    """The paths of a conversation's videos."""
    return [part["video"] for message in messages for part in message["content"] if part["type"] == "video"]


def add_video(origin: str, messages: list[dict[str, Any]], video: str) -> list[dict[str, Any]]:
    """Puts a video where a text of the user says `<image>` or `<video>`, at the start of its message as the official
    code does; at the start of the first message of the user where none does.

    Args:
        messages: whose contents are strings.

    Raises:
        RecordError: several placeholders, or no message of the user.
    """
    holders = [
        i
        for i, message in enumerate(messages)
        if message["role"] == "user"
        for token in PLACEHOLDERS
        for _ in range(message["content"].count(token))
    ]
    if len(holders) > 1:
        raise RecordError(f"{origin} has {len(holders)} placeholders for its one video: leave one of them.")
    users = [i for i, message in enumerate(messages) if message["role"] == "user"]
    if not users:
        raise RecordError(f"{origin} has no message of the user: add the question.")
    at = holders[0] if holders else users[0]
    text = messages[at]["content"]
    for token in PLACEHOLDERS:
        text = text.replace(token, "")
    parts = [{"type": "video", "video": video}, {"type": "text", "text": text.strip()}]
    return [message | {"content": parts} if i == at else message for i, message in enumerate(messages)]


def read_json(file: Path) -> list[tuple[str, Any]]:
    """The records of a JSON list, or of JSON lines, each with its origin ("FILE, line 3").

    Raises:
        FileNotFoundError: there is no such file.
        RecordError: it is no JSON (the message says at which line), or no list.
    """
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {file}.")
    try:
        text = file.read_text(encoding="utf-8-sig")  # Windows' editors write a mark first
    except UnicodeDecodeError as error:
        raise RecordError(f"{file} is no UTF-8 text: {error}. Save it as UTF-8.") from error
    if file.suffix.lower() in (".jsonl", ".ndjson"):
        lines = [(f"{file}, line {i}", line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
        return [(origin, parse_json(line, origin)) for origin, line in lines]
    content = parse_json(text, str(file))
    if not isinstance(content, list):
        raise RecordError(f"{file} must hold a list of records, got {type(content).__name__}.")
    return [(f"{file}, record {i}", record) for i, record in enumerate(content, 1)]


def parse_json(text: str, origin: str) -> Any:
    """What a text says; RecordError, with origin, line and column, if it is no JSON."""
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise RecordError(
            f"{origin} is no JSON: {error}. Was its download cut short? (One record a line belongs into a .jsonl.)"
        ) from error


def with_progress(records: Collection[Any], what: str) -> Iterator[Any]:
    """The records, with a progress bar if there are many."""
    return iter(tqdm(records, desc=what, unit="record", disable=len(records) < 10_000))


def join_path(folder: Path, path: str) -> str:
    """A video's path within a folder; an address stays as it is."""
    return path if protocol_of(path) else str(folder / path)


__all__ = ["RecordError", "Records", "add_video", "join_path", "read_json", "with_progress"]
