"""Damaged video files: made by seed, read, and judged. `python -m tests.processing.fuzzing COUNT` prints a report.

A damaged file is read right if it ends in a `VideoReadingError`, or in frames each of which is one of the whole file
or one that a plain decode of the damaged file shows, whichever way up; a last one that a warning calls partly there is
not looked at. Decoders paint over what is lost, by what their threads happen to have: where plain decodes differ among
themselves, a picture of its own is "painted". All else is a fault: another exception, another picture, a number of
frames that was not asked for, more than 10 seconds.
"""

import io
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from tests import clips
from vidlada_hf.processing.containers_vidlada import open_container
from vidlada_hf.processing.video_reading_vidlada import VideoReadingError, read_video

FRAMES = 16
SECONDS = 10.0  # of CPU that a small file may take
RIGHT = ("read", "refused", "painted")
LOOKS = 5  # decoders that paint over a damage do it in another way each time, since their threads race
# file name -> how `clips.encode` makes it
SEEDS: dict[str, dict[str, Any]] = {
    "h264.mp4": {},
    "h264 fragmented.mp4": {"muxer_options": {"movflags": "frag_keyframe+empty_moov"}},
    "hevc.mov": {"codec": "hevc"},
    "av1.mp4": {"codec": "av1"},
    "h264.mkv": {"audio": True},
    "vp9.webm": {"codec": "vp9"},
    "vp8.webm": {"codec": "vp8"},
    "h264.ts": {},
    "mpeg2.mpg": {"codec": "mpeg2"},
    "h264.flv": {"bf": "0"},
    "mpeg4.avi": {"codec": "mpeg4", "bf": "0"},
    "h264.h264": {},
    "animated.gif": {},
    "animated.png": {},
    "animated.webp": {},
}


@cache
def seed_file(name: str) -> bytes:
    """The content of the whole file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        if name.startswith("animated"):
            images = [Image.fromarray(picture) for picture in clips.pictures(FRAMES)]
            images[0].save(path, save_all=True, append_images=images[1:], duration=100)
        else:
            clips.encode(path, **({"frames": FRAMES} | SEEDS[name]))
        return path.read_bytes()


def damage(data: bytes, random: np.random.Generator) -> bytes:
    """A file with one kind of damage; half of it hits the first or the last kilobyte, where headers are."""
    changed = bytearray(data)

    def place(length: int = 1) -> int:
        kind, room = random.integers(4), max(1, len(data) - length)
        near = min(1024, room)
        return int(
            random.integers(near) if kind == 0 else room - random.integers(near) if kind == 1 else random.integers(room)
        )

    match random.integers(7):
        case 0:  # single bytes
            for _ in range(random.integers(1, 20)):
                changed[place()] = random.integers(256)
        case 1:  # single bits
            for _ in range(random.integers(1, 20)):
                changed[place()] ^= 1 << int(random.integers(8))
        case 2:  # a number of 32 bits, as lengths, counts and times are
            extreme = random.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, random.integers(1 << 32)])
            at = place(4)
            changed[at : at + 4] = int(extreme).to_bytes(4, "big" if random.integers(2) else "little")
        case 3:  # cut short
            del changed[int(random.integers(1, len(data))) :]
        case 4:  # a part is lost
            at, length = place(), int(random.integers(1, 1500))
            del changed[at : at + length]
        case 5:  # a part is overwritten by zeros or by noise
            length = int(random.integers(1, min(1500, len(data) // 2)))
            at = place(length)
            changed[at : at + length] = random.bytes(length) if random.integers(2) else bytes(length)
        case 6:  # a part of the file stands in it twice
            at, length = place(), int(random.integers(1, 1500))
            changed[place() : 0] = data[at : at + length]
    return bytes(changed)


def plain_decode(data: bytes, threads: str = "AUTO") -> Iterator[np.ndarray]:
    """Every frame that can be had of a file, from its start to its end; `threads` is PyAV's `thread_type`."""
    if data[8:12] == b"WEBP":
        with Image.open(io.BytesIO(data)) as image:
            for index in range(image.n_frames):
                image.seek(index)
                yield np.asarray(image.convert("RGB"))
        return
    with open_container(io.BytesIO(data)) as container:
        for stream in container.streams.video:
            stream.thread_type = threads
        for packet in container.demux(video=list(range(len(container.streams.video)))):
            try:
                for frame in packet.decode():
                    yield frame.to_ndarray(format="rgb24")
            except (av.FFmpegError, ValueError):
                continue


def fingerprints(frames: Iterator[np.ndarray]) -> set[bytes]:
    """What tells a picture from another, whichever way up it is."""
    found = set()
    try:
        for frame in frames:
            found.add(fingerprint(frame))
    except Exception:  # what was there until then counts
        pass
    return found


def fingerprint(frame: np.ndarray) -> bytes:
    pixels = frame.astype(np.uint32) @ np.array([1, 256, 65536], np.uint32)
    return np.sort(pixels, axis=None).tobytes()


def judge(name: str, data: bytes, path: Path | None = None) -> str:
    """ "refused", "read", "painted", or what is wrong. The file is read from `path`, or else from its bytes."""
    if path is not None:
        path.write_bytes(data)
    shown = set(whole(name))
    for _ in range(LOOKS):
        began = time.process_time()
        try:
            frames, asked = read_four(data if path is None else path)
        except VideoReadingError:
            frames, asked = np.empty(0), 0
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:200]}"
        if (seconds := time.process_time() - began) > SECONDS:
            return f"{seconds:.0f} s of CPU"
        if not asked:
            return "refused"
        if len(frames) != asked or frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
            return f"{frames.dtype} {frames.shape} for {asked} frames"
        shown |= fingerprints(plain_decode(data))
        if {fingerprint(frame) for frame in frames} <= shown:
            return "read"
    invents = fingerprints(plain_decode(data, "NONE")) != fingerprints(plain_decode(data, "AUTO"))
    return "painted" if invents else "a picture that no plain decode shows"


def read_four(source: bytes | Path) -> tuple[np.ndarray, int]:
    """Four frames, spread evenly, and how many were asked for."""
    asked: list[int] = []

    def choose(metadata: Any) -> list[int]:
        asked[:] = np.linspace(0, metadata.total_num_frames - 1, 4, dtype=int).tolist()
        return asked

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frames, _ = read_video(source, choose)
    if len(frames) == len(asked) > 1 and any("only partly there" in str(warning.message) for warning in caught):
        return frames[:-1], len(asked) - 1
    return frames, len(asked)


@cache
def whole(name: str) -> set[bytes]:
    """Fingerprints of the frames of the whole file."""
    return fingerprints(plain_decode(seed_file(name)))


def fuzz(name: str, count: int, folder: Path, show: Callable[[str], None] = lambda line: None) -> Counter[str]:
    """Outcomes of `count` damaged copies of a file; each is shown that is wrong."""
    outcomes: Counter[str] = Counter()
    for number in range(count):
        data = damage(seed_file(name), np.random.default_rng([number, *name.encode()]))
        outcome = judge(name, data, folder / name if number % 2 else None)
        outcomes[outcome] += 1
        if outcome not in RIGHT:
            show(f"{name}, mutant {number}: {outcome}")
    return outcomes


def line_of(name: str, outcomes: Counter[str]) -> str:
    count = outcomes.total()
    wrong = count - sum(outcomes[kind] for kind in RIGHT)
    counts = ", ".join(f"{outcomes[kind]:5} {kind}" for kind in RIGHT)
    return f"{name:20} {count:5} files: {counts}, {wrong} wrong"


def main(count: int) -> None:
    """Damages the files, `count` times in all, and prints a line for each."""
    total: Counter[str] = Counter()
    print(f"av {av.__version__}, libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for index, name in enumerate(SEEDS):
            share = count // len(SEEDS) + (index < count % len(SEEDS))
            outcomes = fuzz(name, share, Path(folder), print)
            print(line_of(name, outcomes), flush=True)
            total.update(outcomes)
    print(line_of("all", total), f"in {time.monotonic() - began:.0f} s")
    sys.exit(any(kind not in RIGHT for kind in total))


if __name__ == "__main__":
    main(int(sys.argv[1]))
