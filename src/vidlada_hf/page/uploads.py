"""What a video may be that somebody uploads: readable, and not too long. Its size is limited while it comes in."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..processing.video_reading_vidlada import read_video


@contextmanager
def folder_hidden(path: str) -> Iterator[None]:
    """Errors name the file alone: where it lies on the server is nobody's business."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise ValueError(str(error).replace(f"{Path(path).parent}{os.sep}", "")) from error


def check_upload(path: str, max_seconds: float) -> None:
    """Reads the first frame of a video.

    Raises:
        ValueError: the video is longer than `max_seconds`, or cannot be read.
    """

    def choose(metadata: Any) -> list[int]:
        if metadata.duration is not None and metadata.duration > max_seconds:
            raise ValueError(
                f"{Path(path).name} lasts {metadata.duration:.0f} seconds, and this page takes at most "
                f"{max_seconds:.0f}: cut it."
            )
        return [0]

    with folder_hidden(path):
        read_video(path, choose)


__all__ = ["check_upload", "folder_hidden"]
