"""Conversations in a column of messages, as most data sets for fine-tuning have them: local files, or the Hub.

A record: `{"messages": [{"role": "user", "content": ...}, {"role": "assistant", "content": ...}]}`, with the video as a
part of a content (`{"type": "video", "video": "a.mp4"}`), or as a column `video` beside messages that are plain texts.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from .records import RecordError, Records, add_video, join_path, read_json, with_progress

JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")


class MessageConversations(Records):
    """The records of a file or of a data set on the Hub.

    Args:
        path: of a .json, .jsonl or .parquet file, or a data set's id on the Hub.
        column: of the messages.
        video_column: of the videos' paths, where messages hold none.
        split: of a data set on the Hub.
        name: of one of its configurations, where it has several.
        video_folder: what the paths of videos are relative to.
        seed: not used; every source takes one.

    Raises:
        FileNotFoundError: there is no such file, or no such data set.
        RecordError: a record that cannot be used, with its origin.
    """

    def __init__(
        self,
        path: str,
        column: str = "messages",
        video_column: str = "video",
        split: str = "train",
        name: str | None = None,
        video_folder: str = ".",
        seed: int = 0,
    ) -> None:
        super().__init__(self._read(load(path, split, name), path, column, video_column, Path(video_folder)), path)

    @staticmethod
    def _read(
        records: "list[tuple[str, Any]] | DatasetRecords", path: str, column: str, video_column: str, folder: Path
    ) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        for origin, record in with_progress(records, path):
            if not isinstance(record, dict) or record.get(column) is None:
                has = ", ".join(record) if isinstance(record, dict) else type(record).__name__
                raise RecordError(
                    f"{origin} has no `{column}`, only {has}: name the column of the messages (`column`)."
                )
            yield origin, join_videos(origin, record[column], record.get(video_column), folder)


def load(path: str, split: str, name: str | None = None) -> "list[tuple[str, Any]] | DatasetRecords":
    """Records with their origins, by what the path is."""
    file = Path(path)
    if file.suffix.lower() in JSON_SUFFIXES:
        return read_json(file)
    import datasets

    if file.suffix.lower() == ".parquet":
        if not file.is_file():
            raise FileNotFoundError(f"There is no file {file}.")
        try:
            return DatasetRecords(datasets.Dataset.from_parquet(path), path)
        except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
            raise RecordError(f"{path} is no Parquet: {error}. Was its download cut short?") from error
    try:
        return DatasetRecords(datasets.load_dataset(path, name, split=split), f"{path} ({split})")
    except (datasets.exceptions.DatasetNotFoundError, ConnectionError) as error:
        raise FileNotFoundError(
            f"{path!r} is no .json, .jsonl or .parquet file, and there is no such data set on the Hub: {error}"
        ) from error
    except ValueError as error:
        raise ValueError(f"The data set {path!r} cannot be read (`name`, `split`): {error}") from error


class DatasetRecords(Collection):
    """The rows of a table, with their origins."""

    def __init__(self, table: Any, name: str) -> None:
        import datasets

        for column, feature in table.features.items():
            if isinstance(feature, datasets.Video):  # videos are read later, and not by `datasets`
                table = table.cast_column(column, datasets.Video(decode=False))
        self.table, self.name = table, name

    def __len__(self) -> int:
        return len(self.table)

    def __contains__(self, row: object) -> bool:
        return row in self.table

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return ((f"{self.name}, record {i}", row) for i, row in enumerate(self.table, 1))


def join_videos(origin: str, messages: Any, video: Any, folder: Path) -> Any:
    """Messages with their video's path joined to the folder; the one beside them is put in if they are plain texts."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return messages  # `Records` says what is wrong with them
    if video is not None and all(isinstance(message.get("content"), str) for message in messages):
        if isinstance(video, dict):  # of a column of videos
            path = video.get("path")
            if video.get("bytes") is not None and not (isinstance(path, str) and (folder / path).exists()):
                raise RecordError(
                    f"{origin} has its video's content in the table: write it into a file, and name that in"
                    " `video_column`."
                )
            video = path
        if not isinstance(video, str):
            raise RecordError(f"{origin} has a video that is no path: {str(video)[:80]!r}.")
        return add_video(origin, messages, join_path(folder, video))
    return [
        message | {"content": [join_part(folder, part) for part in message["content"]]}
        if isinstance(message.get("content"), list)
        else message
        for message in messages
    ]


def join_part(folder: Path, part: Any) -> Any:
    """A part with its video's path joined to the folder; any other part as it is."""
    path = (part.get("video") or part.get("path")) if isinstance(part, dict) and part.get("type") == "video" else None
    return part | {"video": join_path(folder, path)} if isinstance(path, str) else part


__all__ = ["MessageConversations"]
