"""Which reader a file gets: FFmpeg, or Pillow for still pictures and animated WebP.

Animated pictures are videos. FFmpeg reads GIF, APNG and AVIF, but no animated WebP. A still picture is a video of one
frame, with the pixels that it has in a list of frames.
"""

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from .addresses_vidlada import protocol_of
from .containers_vidlada import open_container
from .limits_vidlada import DEFAULT_LIMITS, ReadingLimits
from .pictures_vidlada import path_of_file_address
from .video_clip_vidlada import Clip, ClipMetadata, VideoReadingError
from .video_file_vidlada import VideoFile
from .video_frames_vidlada import FrameSequence
from .video_packets_vidlada import FileHead

_HEAD = 4096  # bytes among which a picture says that it moves
_SLOWNESS = 16  # times that of a video's decoder
_PNG = b"\x89PNG\r\n\x1a\n"
_PNM = {kind + blank for kind in (b"1", b"2", b"3", b"4", b"5", b"6") for blank in (b" ", b"\n", b"\r", b"\t")}


def open_file(file: str | BinaryIO, limits: ReadingLimits = DEFAULT_LIMITS) -> Clip:
    """Opens a video file or a picture: a local path, or a seekable binary file object."""
    head = FileHead(file)
    if _is_animated_webp(head.bytes):
        return AnimatedWebP(file, limits)
    if _is_still_picture(file, head.bytes):
        most = limits.pixels_of(head.size)
        return FrameSequence([file], limits=replace(limits, max_pixels=most))
    return VideoFile(file, limits, head)


def is_animated_picture(name: str) -> bool:
    """Whether a file is a PNG, WebP or AVIF that moves, whatever its suffix; False where there is no such file."""
    if protocol_of(name) == "file":
        with suppress(VideoReadingError):  # reading it will say what is wrong
            name = path_of_file_address(name)
    if not os.path.isfile(name):
        return False
    with open(name, "rb") as file:
        head = file.read(_HEAD)
    return _is_animated_png(head) or _is_animated_webp(head) or head[4:12] == b"ftypavis"


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


def _is_still_picture(file: str | BinaryIO, head: bytes) -> bool:
    """Whether it is a JPEG, PNG, WebP, TIFF, BMP or PNM that does not move. (AVIF is read by FFmpeg always.)"""
    if head.startswith(b"\xff\xd8\xff"):
        return not _is_motion_jpeg(file)
    if head.startswith(_PNG):
        return not _is_animated_png(head)
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP" and not _is_animated_webp(head)
    return is_webp or head.startswith((b"II*\0", b"MM\0*", b"BM")) or (head[:1] == b"P" and head[1:3] in _PNM)


def _is_motion_jpeg(file: str | BinaryIO) -> bool:
    """Whether JPEGs follow each other; not where the first lists them, as phones do that add a map of brightness."""
    with closing(open_container(file, {"codec_whitelist": "none"})) as container:
        if container.format.name != "mjpeg":
            return False
    try:
        with ExitStack() as opened:
            content = opened.enter_context(open(file, "rb")) if isinstance(file, str) else file
            content.seek(0)
            return Image.open(content, formats=["JPEG"]).format != "MPO"
    except OSError:  # FFmpeg reads on where a picture is damaged
        return True


def _is_animated_png(head: bytes) -> bool:
    """By the chunk that stands before the data (PNG specification, 11.3.6.1)."""
    return head.startswith(_PNG) and 0 < head.find(b"acTL") < (head.find(b"IDAT") % (len(head) + 1))


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
