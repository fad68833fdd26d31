"""Conversations in the format of LLaVA-Video-178K: JSON files, listed by a YAML file that says how much of each.

    datasets:
      - json_path: 0_30_s_academic.json   # relative to this file; .jsonl too
        sampling_strategy: first:10%      # all, first:N, end:N or random:N, N with or without %
        video_folder: videos              # relative to this file too

A record: `{"video": "a.mp4", "conversations": [{"from": "human", "value": "<image>\\nWhat happens?"}, {"from": "gpt",
"value": "A dog runs."}]}`. Other keys (`id`, `data_source`, ...) are ignored.
"""

import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..recipe import read_yaml
from ..schema import refuse_unknown
from .records import RecordError, Records, add_video, join_path, read_json, with_progress

SENDERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
ENTRY_KEYS = ("json_path", "sampling_strategy", "video_folder")


class LlavaConversations(Records):
    """The records of JSON files.

    Args:
        path: of a YAML file that lists JSON files, or of one JSON or JSONL file.
        video_folder: what the paths of videos are relative to. An entry of the list may have its own, relative
            to the list.
        seed: of the strategy `random`.

    Raises:
        FileNotFoundError: the list, or a file that it names.
        RecordError: a record that cannot be used, with its file and number.
        ValueError: a list with unknown keys, or an impossible strategy.
    """

    def __init__(self, path: str, video_folder: str = ".", seed: int = 0) -> None:
        super().__init__(self._read(Path(path), video_folder, seed), str(path))

    @staticmethod
    def _read(path: Path, video_folder: str, seed: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        for number, entry in enumerate(entries_of(path)):
            file = Path(entry["json_path"])
            records = sample_records(read_json(file), entry.get("sampling_strategy", "all"), seed + number, str(path))
            folder = Path(entry.get("video_folder", video_folder))
            for origin, record in with_progress(records, file.name):
                yield origin, as_messages(origin, record, folder)


def entries_of(path: Path) -> list[dict[str, str]]:
    """The entries of a list, or one for a file of records."""
    return read_list(path) if path.suffix.lower() in (".yaml", ".yml") else [{"json_path": str(path)}]


def read_list(path: Path) -> list[dict[str, str]]:
    """The entries of a YAML list, with paths relative to its folder made whole."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no list of datasets {path}.")
    content = read_yaml(path)
    entries = content.get("datasets") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path} must hold `datasets:`, a list of entries with a `json_path` each.")
    refuse_unknown(content, ["datasets"], str(path))
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict) or "json_path" not in entry:
            raise ValueError(f"Entry {number} of {path} has no `json_path`.")
        refuse_unknown(entry, list(ENTRY_KEYS), f"entry {number} of {path}")
        for key in ("json_path", "video_folder"):
            if not isinstance(entry.get(key, ""), str):
                raise ValueError(f"`{key}` in entry {number} of {path} must be a path, got {entry[key]!r}.")
        parse_strategy(entry.get("sampling_strategy", "all"), f"entry {number} of {path}")
    paths = ("json_path", "video_folder")
    return [entry | {key: str(path.parent / entry[key]) for key in paths if key in entry} for entry in entries]


def sample_records(records: Sequence[Any], strategy: str, seed: int, where: str) -> Sequence[Any]:
    """Some of the records, by a strategy of the official lists.

    Args:
        strategy, where: see `parse_strategy`.
        seed: of "random".
    """
    kind, number, is_part = parse_strategy(strategy, where)
    if kind == "all":
        return records
    count = min(math.ceil(number * len(records) / 100) if is_part else number, len(records))
    if kind == "random":
        return random.Random(seed).sample(list(records), count)
    return records[:count] if kind == "first" else records[len(records) - count :]


def parse_strategy(strategy: Any, where: str) -> tuple[str, int, bool]:
    """Kind, N and whether N is a percentage.

    Args:
        strategy: "all", "first:N", "end:N" or "random:N"; "N%" is that part of the records, rounded up.
        where: the strategy stands, for the error.

    Raises:
        ValueError: there is no such strategy, or N is no number of 0 or more.
    """
    if strategy == "all":
        return "all", 0, False
    kind, _, amount = str(strategy).partition(":")
    number = amount.removesuffix("%")
    if kind not in ("first", "end", "random") or not number.isdecimal():
        raise ValueError(
            f"Unknown sampling strategy {strategy!r} in {where}: pass all, first:N, end:N or random:N, with N a whole "
            "number or one followed by %."
        )
    return kind, int(number), amount.endswith("%")


def as_messages(origin: str, record: Any, video_folder: Path) -> list[dict[str, Any]]:
    """A record as messages of the chat template, its video joined to the folder."""
    if not isinstance(record, dict) or not isinstance(record.get("conversations"), list):
        raise RecordError(f"{origin} has no list `conversations`.")
    if not isinstance(record.get("video"), str) or not record["video"]:
        raise RecordError(f"{origin} has no `video`: add its path, or leave the record out.")
    messages = []
    for turn in record["conversations"]:
        texts = [turn.get(key) for key in ("from", "value")] if isinstance(turn, dict) else [None]
        if not all(isinstance(text, str) for text in texts) or texts[0] not in SENDERS:
            known = ", ".join(SENDERS)
            raise RecordError(f"{origin} has a turn that is no `from` (of {known}) with a `value`: {str(turn)[:80]!r}.")
        messages.append({"role": SENDERS[turn["from"]], "content": turn["value"]})
    return add_video(origin, messages, join_path(video_folder, record["video"]))


__all__ = ["LlavaConversations", "sample_records"]
