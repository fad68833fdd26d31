"""Animated pictures are videos. FFmpeg reads GIF, APNG and AVIF; animated WebP, which it cannot, is read by Pillow."""

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from .limits_vidlada import DEFAULT_LIMITS, ReadingLimits
from .video_clip_vidlada import Clip, ClipMetadata, VideoReadingError
from .video_file_vidlada import VideoFile
from .video_packets_vidlada import FileHead

_HEAD = 4096  # bytes among which a picture says that it moves
_SLOWNESS = 16  # times that of a video's decoder


def open_file(file: str | BinaryIO, limits: ReadingLimits = DEFAULT_LIMITS) -> Clip:
    """Opens a video file or an animated picture: a local path, or a seekable binary file object."""
    head = FileHead(file)
    return AnimatedWebP(file, limits) if _is_animated_webp(head.bytes) else VideoFile(file, limits, head)


def is_animated_picture(name: str | bytes) -> bool:
    """Whether a file is a PNG, WebP or AVIF that moves, whatever its suffix; False where there is no such file."""
    if not os.path.isfile(name):
        return False
    with open(name, "rb") as file:
        head = file.read(_HEAD)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return 0 < head.find(b"acTL") < (head.find(b"IDAT") % (len(head) + 1))
    return _is_animated_webp(head) or head[4:12] == b"ftypavis"


class AnimatedWebP:
    """An animated WebP.

    Args:
        file: a local path, or a seekable binary file object.
        limits: what it may cost.

    Attributes:
        metadata: of frames that are shown as long as the file says.
    """

    def __init__(self, file: str | BinaryIO, limits: ReadingLimits = DEFAULT_LIMITS) -> None:
        self._file: BinaryIO = open(file, "rb") if isinstance(file, str) else file  # noqa: SIM115
        self._owns = isinstance(file, str)
        try:
            seconds = _frame_durations(self._file)
            self._image = self._open(limits, len(seconds))
        except BaseException:
            self.close()
            raise
        width, height = self._image.size
        duration = sum(seconds)
        self.metadata = ClipMetadata(
            total_num_frames=len(seconds),
            fps=len(seconds) / duration if duration else None,
            duration=duration or None,
            width=width,
            height=height,
            video_backend="pillow",
            frame_times=np.array([0.0, *accumulate(seconds[:-1])]) if duration else None,
        )

    def frames(
        self, indices: Sequence[int], size: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, Callable[[], np.ndarray]]]:
        """See `Clip`."""
        for index in indices:
            try:
                self._image.seek(index)
                image = np.asarray(self._image.convert("RGB"))
            except (EOFError, OSError) as error:
                raise VideoReadingError(
                    f"frame {index} of {self.metadata.total_num_frames} cannot be decoded: the file is cut short or"
                    " damaged. Fetch it again"
                ) from error
            yield index, partial(np.asarray, image)

    def close(self) -> None:
        """Closes the file if it was opened by its name."""
        if self._owns:
            self._file.close()

    def _open(self, limits: ReadingLimits, count: int) -> Any:
        self._file.seek(0, os.SEEK_END)
        size = self._file.tell()
        self._file.seek(0)
        image = Image.open(self._file, formats=["WEBP"])
        pixels = image.size[0] * image.size[1]
        if pixels > limits.pixels_of(size) or _SLOWNESS * count * pixels > limits.decoded_pixels_of(size):
            raise VideoReadingError(
                f"its {count} frames of {image.size[0]}x{image.size[1]} are more than a file of {size} bytes may have."
                " Scale it down, or pass `ReadingLimits` with a higher `max_pixels`, `max_small_file_pixels` and"
                " `max_decoded_pixels`"
            )
        return image


def _is_animated_webp(head: bytes) -> bool:
    """By the flag of the extended header (WebP container specification)."""
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and len(head) > 20 and bool(head[20] & 0x02)


def _frame_durations(file: BinaryIO) -> list[float]:
    """Seconds for which each frame is shown, by the headers of the chunks ANMF; nothing is decoded."""
    seconds, at = [], 12
    while True:
        file.seek(at)
        header = file.read(24)
        if len(header) < 8:
            break
        if header[:4] == b"ANMF" and len(header) == 24:
            seconds.append(int.from_bytes(header[20:23], "little") / 1000)
        size = struct.unpack_from("<I", header, 4)[0]
        at += 8 + size + size % 2
    if not seconds:
        raise VideoReadingError("it holds no frame. Fetch it again")
    return seconds


__all__ = ["AnimatedWebP", "is_animated_picture", "open_file"]
