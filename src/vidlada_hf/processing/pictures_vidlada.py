"""A picture from wherever it is (a path, an address, PIL, an array) to uint8 RGB."""

import base64
import io
import os
import stat
from collections.abc import Callable
from contextlib import closing
from typing import Any, BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
import torch
from PIL import Image

from .addresses_vidlada import fetch, protocol_of
from .video_clip_vidlada import VideoReadingError

# Formats whose readers open nothing but the file. (Pillow would give an EPS to Ghostscript, whatever its suffix.)
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF", "HEIF", "JPEG2000", "TGA", "ICO")
_ORIENTATION = 0x0112  # the tag of EXIF 2.32, 4.6.4 A, and what makes each of its values upright
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_picture(source: Any, fetch: Callable[[str], BinaryIO] = fetch, max_pixels: int | None = None) -> np.ndarray:
    """One picture as uint8 RGB (height, width, 3), turned upright as its EXIF data say.

    Args:
        source: PIL image; array or tensor (height, width), (height, width, channels) or (channels, height, width); path
            or address; base64 text, as `data:image/...` or alone; binary file object, which is left open.
        fetch: downloads what is at an address that it accepts.
        max_pixels: the most that a picture may have; None: no limit of its own.

    Raises:
        VideoReadingError: it is none, or cannot be read.
    """
    try:
        return _load(source, fetch, max_pixels)
    except MemoryError:
        raise
    except Exception as error:
        name = f"<{type(source).__name__}>"
        if isinstance(source, (str, os.PathLike)):
            name = repr(os.fspath(source)[:200])
        reason = "is no picture that Pillow can open. Replace it or leave it out"
        if isinstance(error, VideoReadingError):
            reason = f"cannot be read: {error}"
        elif isinstance(error, FileNotFoundError):
            reason = "is not there. Check the path"
        raise VideoReadingError(f"its picture {name} {reason}") from error


def as_rgb(frames: np.ndarray | torch.Tensor) -> np.ndarray:
    """Images (..., height, width, channels) or (..., channels, height, width) as uint8 RGB (..., height, width, 3)."""
    if isinstance(frames, torch.Tensor):
        frames = frames.detach().cpu()
        frames = (frames.float() if frames.is_floating_point() else frames).numpy()
    if frames.shape[-1] not in (1, 3, 4):
        if frames.shape[-3] not in (1, 3, 4):
            raise VideoReadingError(f"no dimension of {frames.shape} holds 1, 3 or 4 channels. Pass RGB frames")
        frames = np.moveaxis(frames, -3, -1)
    if frames.size == 0:
        raise VideoReadingError(f"its frames of shape {frames.shape} have no pixel. Pass frames with at least one")
    frames = _as_bytes(frames[..., :3])
    return np.repeat(frames, 3, axis=-1) if frames.shape[-1] == 1 else frames


def _load(source: Any, fetch: Callable[[str], BinaryIO], max_pixels: int | None) -> np.ndarray:
    if isinstance(source, (np.ndarray, torch.Tensor)):
        if source.ndim not in (2, 3):
            raise VideoReadingError(f"the shape {tuple(source.shape)} is no image. Pass (height, width, 3)")
        return as_rgb(source[..., None] if source.ndim == 2 else source)
    if isinstance(source, (str, os.PathLike)):
        with closing(_open_file(source if isinstance(source, str) else os.fsdecode(source), fetch)) as file:
            return _pixels(Image.open(file, formats=_known_formats()), max_pixels)
    if hasattr(source, "seek") and hasattr(source, "read"):
        source.seek(0)
        return _pixels(Image.open(source, formats=_known_formats()), max_pixels)
    if isinstance(source, Image.Image):
        return _pixels(source, max_pixels)
    raise VideoReadingError("pass a path, a PIL image or an array")


def path_of_file_address(address: str) -> str:
    """The local path of a `file://` address."""
    parts = urlsplit(address)
    if parts.netloc not in ("", "localhost"):
        raise VideoReadingError(f"it names a file of another machine, {parts.netloc!r}. Pass the path of a local file")
    return url2pathname(parts.path)


def require_regular_file(path: str) -> int:
    """The size of an ordinary file in bytes; a device or a pipe raises, since it may wait or give data forever."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise VideoReadingError(
            "it is no ordinary file but a device or a pipe. Copy its content into a file, and pass that"
        )
    return status.st_size


def _as_bytes(values: np.ndarray) -> np.ndarray:
    """uint8 as it is, the high byte of uint16 (as decoders do), other integers 0..255, floats 0..1, as uint8 0..255.

    Anything else raises, since its scale would be a guess.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:  # of either byte order
        return (values >> 8).astype(np.uint8)
    if values.dtype.kind not in "uif":
        raise VideoReadingError(f"its values are {values.dtype}. Pass uint8 0..255, uint16 0..65535, or floats 0..1")
    low, high = values.min(), values.max()
    if np.issubdtype(values.dtype, np.floating) and low >= 0 and high <= 1:
        return np.rint(values * 255).astype(np.uint8)
    if np.issubdtype(values.dtype, np.integer) and low >= 0 and high <= 255:
        return values.astype(np.uint8)
    raise VideoReadingError(
        f"its values are {values.dtype} from {low} to {high}. Pass uint8 0..255, uint16 0..65535, or floats 0..1"
    )


def _open_file(name: str, fetch: Callable[[str], BinaryIO]) -> BinaryIO:
    """The content that a path, an address or a base64 text stands for, as an open file."""
    protocol = protocol_of(name)
    if protocol == "file":
        name = path_of_file_address(name)
    elif protocol:
        return fetch(name)
    elif name.startswith("data:image/"):
        return io.BytesIO(base64.b64decode(name.partition(",")[2]))
    if not os.path.exists(name) and (content := _decoded(name)):
        return io.BytesIO(content)
    require_regular_file(name)
    return open(name, "rb")


def _decoded(text: str) -> bytes:
    """What a base64 text holds; nothing if it is none."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        return b""


def _known_formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _pixels(image: Image.Image, max_pixels: int | None) -> np.ndarray:
    """A PIL image as uint8 RGB (height, width, 3)."""
    if not image.width or not image.height:
        raise VideoReadingError(f"a picture of {image.width}x{image.height} pixels is empty. Leave it out")
    if max_pixels is not None and image.width * image.height > max_pixels:
        raise VideoReadingError(
            f"a picture of {image.width}x{image.height} has more than {max_pixels} pixels, the limit of a frame. Make"
            " it smaller, or raise `max_pixels` and `max_small_file_pixels`"
        )
    from_file = image.format is not None
    image.load()  # which turns a TIFF
    turn = turn_of(image)
    image = image if turn is None else image.transpose(turn)
    if image.mode.startswith("I"):
        values = np.asarray(image)
        # "I;16" and the like are gray of 16 bits; so is what Pillow opens of a file as "I", integers of 32 bits.
        is_wide = image.mode != "I" or (from_file and values.min() >= 0 and values.max() <= 0xFFFF)
        return as_rgb((values.astype(np.uint16) if is_wide else values)[..., None])
    if image.mode == "F":
        return as_rgb(np.asarray(image)[..., None])
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """What makes a picture upright by its EXIF data; None for one that is, or whose data are damaged."""
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # Pillow's parser raises a dozen kinds
        return None


__all__ = ["as_rgb", "load_picture", "path_of_file_address", "require_regular_file", "turn_of"]
