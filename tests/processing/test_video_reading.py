"""Every form in which a video can be given, and one error for all that cannot be read."""

import io
import pickle
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from tests import clips
from vidlada_hf.processing.limits_vidlada import ReadingLimits
from vidlada_hf.processing.video_reading_vidlada import VideoReadingError, read_video

from .helpers import FAST_START, assert_names_source_and_remedy, cut, every_frame


class Pipe(io.RawIOBase):
    """A binary stream that cannot seek."""

    def __init__(self, content):
        self._content = io.BytesIO(content)

    def readable(self):
        return True

    def readinto(self, buffer):
        return self._content.readinto(buffer)


@pytest.mark.parametrize(
    "form",
    [
        str,
        lambda path: path,
        lambda path: path.as_uri(),
        lambda path: path.read_bytes(),
        lambda path: bytearray(path.read_bytes()),
        lambda path: io.BytesIO(path.read_bytes()),
        lambda path: path.open("rb"),
        lambda path: Pipe(path.read_bytes()),
        lambda path: {"bytes": path.read_bytes(), "path": "somewhere else.mp4"},
        lambda path: {"bytes": None, "path": str(path)},
        lambda path: {"path": path},
    ],
    ids=["str", "Path", "uri", "bytes", "bytearray", "BytesIO", "file", "pipe", "row", "row with a path", "path alone"],
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_forms_of_a_file(tmp_path, form, suffix):
    path = clips.encode(tmp_path / f"a: 100% odd #name?.{suffix}", frames=20)
    frames, metadata = read_video(form(path), lambda _: [3, 17, 9])
    np.testing.assert_array_equal(frames, clips.decode_all(path)[[3, 17, 9]])
    assert metadata.total_num_frames == 20


def test_a_file_object_is_read_from_its_start_and_left_open(tmp_path):
    with clips.encode(tmp_path / "clip.mp4", frames=5).open("rb") as file:
        file.seek(100)
        read_video(file, every_frame)
        assert len(read_video(file, every_frame)[0]) == 5
        assert not file.closed


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


BAD_FILES = {
    "cut before its index": lambda tmp: cut(clips.encode(tmp / "bad.mp4"), 0.5),
    "cut after its index": lambda tmp: cut(clips.encode(tmp / "bad.mp4", muxer_options=FAST_START), 0.7),
    "cut hevc": lambda tmp: cut(clips.encode(tmp / "bad.mp4", "hevc", muxer_options=FAST_START), 0.7),
    "cut mkv": lambda tmp: cut(clips.encode(tmp / "bad.mkv"), 0.6),
    "cut webm": lambda tmp: cut(clips.encode(tmp / "bad.webm", "vp9"), 0.6),
    "cut avi": lambda tmp: cut(clips.encode(tmp / "bad.avi", "mpeg4", bf="0"), 0.6),
    "empty": lambda tmp: write(tmp / "bad.mp4", b""),
    "garbage": lambda tmp: write(tmp / "bad.mp4", np.random.default_rng(0).bytes(20_000)),
    "text": lambda tmp: write(tmp / "bad.mp4", b"<html>404 Not Found</html>\n" * 50),
    "audio only": lambda tmp: clips.encode_audio(tmp / "bad.m4a"),
    "audio with a cover": lambda tmp: clips.add_cover(clips.encode_audio(tmp / "bad.m4a")),
    "no frames": lambda tmp: clips.encode(tmp / "bad.mkv", frames=[]),
    "missing": lambda tmp: tmp / "bad.mp4",
    "folder without images": lambda tmp: folder(tmp / "bad"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_raise_one_error(tmp_path, kind):
    path = BAD_FILES[kind](tmp_path)
    with pytest.raises(VideoReadingError) as caught:
        read_video(path, every_frame)
    assert_names_source_and_remedy(caught.value, repr(str(path)))
    if path.is_file():
        with path.open("rb") as file, pytest.raises(VideoReadingError) as caught:
            read_video(file, every_frame)
        assert_names_source_and_remedy(caught.value, repr(str(path)))
        with pytest.raises(VideoReadingError) as caught:
            read_video(path.read_bytes(), every_frame)
        assert_names_source_and_remedy(caught.value, f"<{path.stat().st_size} bytes>")


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (np.zeros((0, 8, 8, 3), np.uint8), "no frame"),
        (np.zeros((8, 8, 3), np.uint8), "3 dimensions"),
        (np.zeros((2, 8, 8, 5), np.uint8), "1, 3 or 4 channels"),
        (np.full((2, 8, 8, 3), 7.5), "float64 from 7.5 to 7.5"),
        (np.full((2, 8, 8, 3), np.nan), "nan"),
        (torch.full((2, 8, 8, 3), -1), "from -1 to -1"),
        ([], "no frame"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)], "differ in size"),
        ([Image.new("RGB", (8, 8)), "no such frame.png"], "no such frame.png"),
        ([np.zeros(3, np.uint8)], "is no image"),
        (b"", "empty"),
        (io.BytesIO(), "empty"),
        (io.StringIO("text"), "text mode"),
        (io.TextIOWrapper(io.BytesIO(b"\x8f" * 9)), "text mode"),
        (42, "a int is not a video"),
        (None, "NoneType"),
        ({}, "a dict is not a video"),
        ({"bytes": None, "path": None}, "a dict is not a video"),
        ({"path": "a.mp4", "array": None}, "a dict is not a video"),
        ("no such file\0.mp4", "no video"),
        ("file://server/share/a.mp4", "another machine"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_sources_raise_one_error(source, problem):
    with pytest.raises(VideoReadingError, match=problem) as caught:
        read_video(source, every_frame)
    assert_names_source_and_remedy(caught.value, str(caught.value)[len("Cannot read the video ") :].split(": ")[0])


def test_the_original_error_is_the_cause(tmp_path):
    with pytest.raises(VideoReadingError) as caught:
        read_video(write(tmp_path / "bad.mp4", b"garbage" * 100), every_frame)
    assert type(caught.value.__cause__).__name__ == "InvalidDataError"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # crosses a data loader's processes


def test_a_long_name_is_shortened():
    with pytest.raises(VideoReadingError) as caught:
        read_video("a" * 5000, every_frame)
    assert_names_source_and_remedy(caught.value, f"'{'a' * 99}...{'a' * 19}'")


@pytest.mark.parametrize("indices", [[], [30], [-1], [0, 31]])
def test_indices_that_do_not_exist(tmp_path, indices):
    with pytest.raises(VideoReadingError, match="it has 30 frames. Choose indices from 0 to 29"):
        read_video(clips.encode(tmp_path / "clip.mp4", frames=30), lambda _: indices)


def test_errors_of_the_choice_pass_untouched(tmp_path):
    def refuse(metadata):
        raise ZeroDivisionError("no choice")

    with pytest.raises(ZeroDivisionError, match="no choice"):
        read_video(clips.encode(tmp_path / "clip.mp4", frames=3), refuse)


def test_a_pipe_has_a_limit(tmp_path):
    content = clips.encode(tmp_path / "clip.mp4", frames=5).read_bytes()
    limits = ReadingLimits(max_download_bytes=len(content) - 1)
    with pytest.raises(VideoReadingError, match="`max_download_bytes`"):
        read_video(Pipe(content), every_frame, limits=limits)


def test_a_folder_has_a_limit(tmp_path):
    for index, picture in enumerate(clips.pictures(4)):
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
    assert len(read_video(tmp_path, every_frame, limits=ReadingLimits(max_folder_entries=4))[0]) == 4
    with pytest.raises(VideoReadingError, match="more than 3 entries.*`max_folder_entries`"):
        read_video(tmp_path, every_frame, limits=ReadingLimits(max_folder_entries=3))


def test_a_header_that_asks_for_too_much_memory_is_damaged(tmp_path, monkeypatch):
    """FFmpeg's "cannot allocate" speaks of the file; Python's own of this machine."""
    path = clips.encode(tmp_path / "clip.mp4", frames=3)
    damaged = av.MemoryError(12, "Cannot allocate memory")
    for error, raised in ((damaged, VideoReadingError), (MemoryError(), MemoryError)):

        def fail(*args, error=error):
            raise error

        monkeypatch.setattr("vidlada_hf.processing.video_reading_vidlada.open_file", fail)
        with pytest.raises(raised):
            read_video(path, every_frame)
