"""Which frames are sampled and what becomes of their pixels: against the recorded official code, and by properties."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers.video_utils import VideoMetadata

from tests import clips
from tests.golden_model import assert_recorded, golden_processor, load_json, load_tensors, pixels, resized_frames
from vidlada_hf.processing.video_processing_vidlada import (
    VidLaDAVideoProcessor,
    frame_stride,
    frame_timestamps,
    list_videos,
    sample_frame_indices,
)
from vidlada_hf.processing.video_reading_vidlada import VideoReadingError

totals = st.integers(1, 100_000)
rates = st.floats(0.01, 1000)
counts = st.integers(1, 300)


# The sampling rule


def test_official_sampling(golden):
    """Indices and times of the evaluation wrapper and the training loader, which agree."""
    cases = load_json(golden, "frame_sampling")
    assert cases
    for case in cases:
        total, average_fps = case["total_frames"], case["avg_fps"]
        indices = sample_frame_indices(
            total,
            average_fps,
            fps=case["fps"],
            max_frames=case["max_frames_num"],
            force_sample=case["force_sample"],
        )
        for official in (case["eval"], case["train"]):
            if "error" in official:  # half a frame a second, sampled at one: the official stride is 0 and it crashes
                assert frame_stride(average_fps, case["fps"]) == 1
                assert len(indices) == case["max_frames_num"]
                continue
            assert indices.tolist() == official["frame_idx"]
            assert len(indices) == official["num_frames"]
            assert total / average_fps == official["video_time"]
            stride = frame_stride(average_fps, case["fps"])
            strided = not case["force_sample"] and len(range(0, total, stride)) <= case["max_frames_num"]
            times = frame_timestamps(indices, average_fps, stride=stride if strided else None)
            assert ",".join(f"{time:.2f}s" for time in times) == official["frame_time"]


@given(totals, st.none() | rates, st.none() | rates, st.none() | counts)
def test_sampling_at_a_rate(total, average_fps, fps, max_frames):
    indices = sample_frame_indices(total, average_fps, fps=fps, max_frames=max_frames)
    assert indices.dtype == np.int64 and indices[0] == 0 and indices[-1] < total
    assert (np.diff(indices) > 0).all()
    assert max_frames is None or len(indices) <= max_frames
    stride = frame_stride(average_fps, fps)
    if max_frames is None or len(range(0, total, stride)) <= max_frames:
        assert indices.tolist() == list(range(0, total, stride))
    elif max_frames > 1:
        assert indices[-1] == total - 1 and np.ptp(np.diff(indices)) <= 1


@given(totals, counts)
def test_sampling_a_number_of_frames(total, num_frames):
    indices = sample_frame_indices(total, 30.0, num_frames=num_frames)
    assert len(indices) == min(num_frames, total)  # never more than there are
    assert indices[0] == 0 and (np.diff(indices) > 0).all()
    assert len(indices) == 1 or (indices[-1] == total - 1 and np.ptp(np.diff(indices)) <= 1)


@given(totals, counts, st.booleans())
def test_forced_sampling_repeats_frames_of_a_short_video(total, count, by_num_frames):
    indices = sample_frame_indices(
        total, 30.0, force_sample=True, **{"num_frames" if by_num_frames else "max_frames": count}
    )
    assert len(indices) == count and (np.diff(indices) >= 0).all() and indices[-1] < total


@given(rates, rates)
def test_a_stride_is_at_least_one(average_fps, fps):
    assert frame_stride(average_fps, fps) == max(1, round(average_fps / fps))
    assert frame_stride(None, fps) == frame_stride(0, fps) == frame_stride(average_fps, None) == 1


def test_timestamps():
    assert frame_timestamps([0, 15, 30], 30.0) == [0, 0.5, 1]
    assert frame_timestamps([0, 15, 30], None, stride=15) == [0, 1, 2]
    with pytest.raises(ValueError, match="pass `video_metadata` with `fps`"):
        frame_timestamps([0], None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 2, "num_frames": 8}, r"`num_frames=8` and `fps=2` .* pass one of them"),
        ({"num_frames": 0}, "`num_frames=0` is impossible: pass a whole number"),
        ({"num_frames": -3}, "`num_frames=-3`"),
        ({"num_frames": 2.5}, "`num_frames=2.5`"),
        ({"num_frames": True}, "`num_frames=True`"),
        ({"num_frames": "8"}, "`num_frames='8'`"),
        ({"max_frames": 0}, "`max_frames=0`"),
        ({"fps": 0}, "`fps=0` is impossible: pass a positive number"),
        ({"fps": -1.5}, "`fps=-1.5`"),
        ({"fps": float("nan")}, "`fps=nan`"),
        ({"fps": float("inf")}, "`fps=inf`"),
    ],
)
def test_impossible_sampling_names_the_value(options, message):
    for attempt in (
        lambda: sample_frame_indices(100, 25.0, **options),
        lambda: VidLaDAVideoProcessor(**options),
        lambda: VidLaDAVideoProcessor()(np.zeros((2, 8, 8, 3), np.uint8), **options),
    ):
        with pytest.raises(ValueError, match=message):
            attempt()


def test_nothing_to_sample():
    with pytest.raises(ValueError, match="video of 0 frames"):
        sample_frame_indices(0, 25.0)
    with pytest.raises(ValueError, match="pass `max_frames` or `num_frames`"):
        sample_frame_indices(10, 25.0, force_sample=True)


# Pixels


@pytest.fixture(scope="module")
def processor():
    return VidLaDAVideoProcessor()


@pytest.fixture(scope="module")
def official(golden):
    return golden_processor(golden).video_processor


def test_official_pixels(golden, official):
    recorded = load_tensors(golden, "preprocess")
    for name in ("fa", "fb", "fc"):
        frames = official(recorded[f"{name}.frames_u8_nhwc"])["pixel_values_videos"]
        torch.testing.assert_close(frames, pixels(golden, name), atol=1e-6, rtol=0)
    corner = official(recorded["fa.frames_u8_nhwc"])["pixel_values_videos"][0, :, :64, :64]
    assert_recorded(corner, golden, "preprocess", "fa.pixel_values_frame0_rows0_64_cols0_64", atol=1e-6)


def test_official_resize(golden, official):
    """Bit for bit, since it is Pillow's on a CPU; torch's own kernel is off by one level here and there."""
    for name in ("fa", "fb", "fc"):
        frames = load_tensors(golden, "preprocess")[f"{name}.frames_u8_nhwc"]
        resized = official(frames, do_rescale=False, do_normalize=False)["pixel_values_videos"]
        assert torch.equal(resized, resized_frames(golden, name))


@pytest.fixture
def stills():
    return np.stack(list(clips.pictures(6, 20, 30)))


def test_frames_are_flat_over_videos_and_never_padded(processor, stills):
    videos = [stills, stills[:1], stills[:, :10, :15]]
    batch = processor(videos, max_frames=4)
    assert batch["video_num_frames"].tolist() == [4, 1, 4] and batch["video_num_frames"].dtype == torch.int64
    assert batch["pixel_values_videos"].shape == (9, 3, 384, 384)
    assert batch["pixel_values_videos"].dtype == torch.float32
    assert batch["pixel_values_videos"].abs().max() <= 1
    alone = [processor(video, max_frames=4)["pixel_values_videos"] for video in videos]
    assert torch.equal(torch.cat(alone), batch["pixel_values_videos"])


def test_numpy_output(processor, stills):
    batch = processor(stills, return_tensors="np")
    assert isinstance(batch["pixel_values_videos"], np.ndarray) and batch["video_num_frames"].tolist() == [6]


def test_videos_of_different_sizes_need_one_size(processor, stills):
    with pytest.raises(ValueError, match=r"\[\(10, 30\), \(20, 30\)\]. Keep `do_resize=True`"):
        processor([stills, stills[:, :10]], do_resize=False)


# Sources


def test_a_file_gives_what_its_frames_give(tmp_path, processor):
    path = clips.encode(tmp_path / "clip.mp4", frames=50, fps=10)
    expected = processor(clips.decode_all(path)[::10], do_sample_frames=False)["pixel_values_videos"]
    for source in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), [path], [[str(path)]]):
        batch = processor(source, return_metadata=True)
        assert torch.equal(batch["pixel_values_videos"], expected)
        (metadata,) = batch["video_metadata"]
        assert list(metadata.frames_indices) == [0, 10, 20, 30, 40]
        assert (metadata.fps, metadata.duration, metadata.total_num_frames) == (10, 5, 50)
        assert metadata.timestamps == [0, 1, 2, 3, 4]


def test_a_batch_of_unlike_sources(tmp_path, processor, stills):
    first, second = (clips.encode(tmp_path / f"{n}.mkv", frames=n, fps=10) for n in (12, 40))
    folder = tmp_path / "frames"
    folder.mkdir()
    for index, frame in enumerate(stills):
        Image.fromarray(frame).save(folder / f"{index}.png")
    images = [Image.fromarray(frame) for frame in stills]
    batch = processor([first, [str(second), folder], images, torch.from_numpy(stills), sorted(folder.iterdir())])
    assert batch["video_num_frames"].tolist() == [2, 4, 6, 6, 6, 6]
    frames = batch["pixel_values_videos"].split(batch["video_num_frames"].tolist())
    assert all(torch.equal(frames[2], same) for same in frames[3:])


@pytest.mark.parametrize(
    ("options", "indices"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),  # the rate is unknown: every frame
        ({"max_frames": 3}, [0, 2, 5]),
        ({"num_frames": 2}, [0, 5]),
        ({"num_frames": 9}, [0, 1, 2, 3, 4, 5]),
        ({"max_frames": 8, "force_sample": True}, [0, 0, 1, 2, 2, 3, 4, 5]),
        ({"video_metadata": {"total_num_frames": 6, "fps": 3.0}}, [0, 3]),
        ({"video_metadata": [VideoMetadata(total_num_frames=6, fps=3.0)], "fps": 1.5}, [0, 2, 4]),
        ({"do_sample_frames": False, "max_frames": 3}, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_decoded_frames_are_sampled_as_files_are(processor, stills, options, indices):
    for video in (stills, list(stills)):
        batch = processor(video, return_metadata=True, **options)
        assert list(batch["video_metadata"][0].frames_indices) == indices
        expected = processor(stills[indices], do_sample_frames=False)["pixel_values_videos"]
        assert torch.equal(batch["pixel_values_videos"], expected)


def test_frames_sampled_before_keep_their_indices(processor, stills):
    """An excerpt is not sampled a second time, which would also confuse its clock."""
    metadata = VideoMetadata(total_num_frames=60, fps=10.0, duration=6.0, frames_indices=[0, 10, 20, 30, 40, 50])
    batch = processor(stills, video_metadata=metadata, do_sample_frames=False, return_metadata=True)
    assert batch["video_metadata"][0].timestamps == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="sampled before, from 60 frames: pass `do_sample_frames=False`"):
        processor(stills, video_metadata=metadata)


def test_one_metadata_for_each_video(processor, stills):
    with pytest.raises(ValueError, match="describes 1 videos, but 2 were given"):
        processor([stills, stills], video_metadata=[VideoMetadata(total_num_frames=6)])


def test_listing_videos(stills):
    image = Image.fromarray(stills[0])
    assert list_videos("a.mp4") == ["a.mp4"]
    assert list_videos([["a.mp4"], ["b.mkv", ["c.webm"]]]) == ["a.mp4", "b.mkv", "c.webm"]
    assert list_videos(["1.png", "2.JPG"]) == [["1.png", "2.JPG"]]
    assert list_videos([[["1.png", "2.png"], "a.mp4"]]) == [["1.png", "2.png"], "a.mp4"]
    assert list_videos(image) == [[image]]
    assert list_videos([[image, image], [image]]) == [[image, image], [image]]
    assert len(list_videos(stills)) == 1 and len(list_videos(stills[None].repeat(3, axis=0))) == 3
    assert list_videos(list_videos(["1.png", "2.png"])) == [["1.png", "2.png"]]


@pytest.mark.parametrize("videos", [[], [[]]])
def test_no_video(processor, videos):
    with pytest.raises(ValueError, match="No video was given"):
        processor(videos)


def test_unreadable_and_unknown(tmp_path, processor):
    with pytest.raises(VideoReadingError, match="no such file"):
        processor([str(tmp_path / "missing.mp4")])
    with pytest.raises(VideoReadingError, match="no frame"):
        processor(np.zeros((0, 8, 8, 3), np.uint8))
    with pytest.raises(TypeError, match="`num_frame`.*Did you mean `num_frames`"):
        processor(np.zeros((2, 8, 8, 3), np.uint8), num_frame=2)


def test_fetch_videos_reads_with_this_reader(tmp_path, processor):
    """transformers' own asks for torchcodec."""
    path = clips.encode(tmp_path / "clip.mp4", frames=5)
    frames, metadata = processor.fetch_videos(str(path))
    np.testing.assert_array_equal(frames, clips.decode_all(path))
    many, _ = processor.fetch_videos([str(path)] * 2, sample_indices_fn=lambda metadata: [1, 3])
    assert [len(frames) for frames in many] == [2, 2] and metadata.total_num_frames == 5


# Configuration


def test_a_given_option_overrides_the_configured_one(tmp_path, processor):
    path = clips.encode(tmp_path / "clip.mp4", frames=40, fps=10)

    def count(processor, **options):
        return processor(path, **options)["video_num_frames"].tolist()

    assert count(processor) == [4]
    assert count(processor, fps=5) == [20]
    assert count(processor, fps=5, max_frames=7) == [7]
    assert count(processor, num_frames=8) == [8]
    assert count(VidLaDAVideoProcessor(max_frames=3), num_frames=8) == [8]
    assert count(VidLaDAVideoProcessor(num_frames=8)) == [8]
    assert count(VidLaDAVideoProcessor(num_frames=8), fps=2) == [8]
    assert count(VidLaDAVideoProcessor(num_frames=8, max_frames=3)) == [8]
    assert count(VidLaDAVideoProcessor(fps=2)) == [8]
    assert count(VidLaDAVideoProcessor(fps=None)) == [40]


@pytest.mark.parametrize("options", [{}, {"num_frames": 8}, {"fps": 0.5, "max_frames": 16}, {"force_sample": True}])
def test_save_and_load(tmp_path, options, stills):
    processor = VidLaDAVideoProcessor(**options)
    processor.save_pretrained(tmp_path)
    again = VidLaDAVideoProcessor.from_pretrained(tmp_path)
    assert again.to_dict() == processor.to_dict()
    metadata = {"total_num_frames": 6, "fps": 3.0}
    first, second = (one(stills, video_metadata=metadata)["pixel_values_videos"] for one in (processor, again))
    assert torch.equal(first, second)


def test_load_with_another_way_of_sampling(tmp_path):
    VidLaDAVideoProcessor(num_frames=8).save_pretrained(tmp_path)
    changed = VidLaDAVideoProcessor.from_pretrained(tmp_path, fps=2)
    assert (changed.fps, changed.num_frames) == (2, None)
    VidLaDAVideoProcessor(fps=2).save_pretrained(tmp_path)
    changed = VidLaDAVideoProcessor.from_pretrained(tmp_path, num_frames=8)
    assert (changed.fps, changed.num_frames) == (None, 8)


def test_misspelled_options_are_refused_where_the_processor_is_made(tmp_path):
    with pytest.raises(TypeError, match="`num_frame`.*Did you mean `num_frames`"):
        VidLaDAVideoProcessor(num_frame=3)
    VidLaDAVideoProcessor().save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="`max_frame`.*Did you mean `max_frames`"):
        VidLaDAVideoProcessor.from_pretrained(tmp_path, max_frame=3)


def test_sampling_options_without_sampling_are_refused():
    with pytest.raises(ValueError, match="`do_sample_frames=False` takes every frame, so `num_frames` has no effect"):
        VidLaDAVideoProcessor()(np.zeros((4, 8, 8, 3), np.uint8), do_sample_frames=False, num_frames=2)
