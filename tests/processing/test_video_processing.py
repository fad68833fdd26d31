"""From videos to the tensor that the model takes: pixels against the recorded official code, sources, configuration."""

import io
import json
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.video_utils import VideoMetadata

from tests import clips
from tests.golden_model import assert_recorded, golden_processor, load_tensors, pixels, resized_frames
from vidlada_hf.processing.limits_vidlada import ReadingLimits
from vidlada_hf.processing.video_processing_vidlada import (
    VidLaDAVideoProcessor,
    list_videos,
)
from vidlada_hf.processing.video_reading_vidlada import VideoReadingError

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
    assert batch["num_frames_per_video"].tolist() == [4, 1, 4] and batch["num_frames_per_video"].dtype == torch.int64
    assert batch["pixel_values_videos"].shape == (9, 3, 384, 384)
    assert batch["pixel_values_videos"].dtype == torch.float32
    assert batch["pixel_values_videos"].abs().max() <= 1
    alone = [processor(video, max_frames=4)["pixel_values_videos"] for video in videos]
    assert torch.equal(torch.cat(alone), batch["pixel_values_videos"])


@pytest.mark.parametrize("size", [{"height": 384, "width": 384}, {"height": 36, "width": 60}])
def test_fast_resize_is_close_to_the_exact_one(tmp_path, processor, size):
    """Also for a clip that a display matrix turns."""
    smooth = [np.asarray(Image.fromarray(picture).resize((320, 240))) for picture in clips.pictures(3, 24, 32)]
    for path in (
        clips.encode(tmp_path / "clip.mp4", frames=smooth),
        clips.set_display_matrix(clips.encode(tmp_path / "turned.mp4", frames=smooth), 0, 1, -1, 0),
    ):
        options = {"size": size, "do_rescale": False, "do_normalize": False, "do_sample_frames": False}
        exact, fast = (processor(path, resize=way, **options)["pixel_values_videos"] for way in ("exact", "fast"))
        assert exact.shape == fast.shape == (3, 3, size["height"], size["width"])
        difference = (exact.float() - fast.float()).abs()
        assert 0 < difference.mean() < 2.5 and difference.quantile(0.99) <= 12


def test_frames_are_resized_while_they_are_read(tmp_path, processor):
    """Memory follows the frames wanted: here 40 of 1.3 MB each, which at their own size were 52 MB."""
    path = clips.encode(tmp_path / "large.mp4", frames=list(clips.pictures(40, 576, 768)))
    options = {"size": {"height": 28, "width": 28}, "do_sample_frames": False}
    processor(path, **options)
    tracemalloc.start()
    try:
        processor(path, **options)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 12 * 576 * 768 * 3


def test_a_size_that_changes_does_not_matter(tmp_path, processor):
    parts = [
        clips.encode(tmp_path / f"{i}.ts", frames=list(clips.pictures(10, *size)), start=1 + 400 * i)
        for i, size in enumerate([(64, 80), (128, 160)])
    ]
    frames = processor(clips.join(tmp_path / "call.ts", parts), do_sample_frames=False)["pixel_values_videos"]
    alone = [processor(part, do_sample_frames=False)["pixel_values_videos"] for part in parts]
    assert torch.equal(frames, torch.cat(alone))


def test_numpy_output(processor, stills):
    batch = processor(stills, return_tensors="np")
    assert isinstance(batch["pixel_values_videos"], np.ndarray) and batch["num_frames_per_video"].tolist() == [6]


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
    assert batch["num_frames_per_video"].tolist() == [2, 4, 6, 6, 6, 6]
    frames = batch["pixel_values_videos"].split(batch["num_frames_per_video"].tolist())
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


def test_sampling_by_time(tmp_path, processor):
    """A recording of 20 frames that pauses from 0.9 s to 9 s: by index half of the frames are of its first second."""
    times = [*range(0, 1000, 100), *range(9000, 10_000, 100)]
    path = clips.encode(tmp_path / "pause.mkv", frames=20, fps=10, times=times)

    def sample(**options):
        (metadata,) = processor(path, return_metadata=True, **options)["video_metadata"]
        return list(metadata.frames_indices), metadata.timestamps

    indices, shown = sample(num_frames=5, sample_by="time")
    assert indices == [0, 9, 9, 9, 19] and shown == pytest.approx([0, 0.9, 0.9, 0.9, 9.9], abs=2e-3)
    assert sample(fps=1, sample_by="time")[0] == [0, *[9] * 8, 10]
    assert sample(fps=1)[0] == sample(fps=1, sample_by="index")[0] == list(range(0, 20, 2))
    with pytest.raises(ValueError, match="`sample_by` must be one of 'index', 'time', got 'frame'"):
        processor(path, sample_by="frame")


def test_limits_and_consent_are_the_callers(tmp_path, processor):
    """Of a call, or of the processor that was made; never what a checkpoint's files say."""
    path = clips.encode(tmp_path / "clip.mp4", frames=5)
    strict = VidLaDAVideoProcessor(limits=ReadingLimits(max_pixels=1000), allow_urls=True)
    strict.save_pretrained(tmp_path)
    (config,) = tmp_path.glob("*.json")
    saved = json.loads(config.read_text())
    assert not {"limits", "allow_urls", "allow_private_urls"} & set(saved)
    loaded = VidLaDAVideoProcessor.from_dict({**saved, "allow_urls": True, "limits": {"max_pixels": 10**12}})
    assert (loaded.allow_urls, loaded.limits) == (False, None)
    assert VidLaDAVideoProcessor.from_dict(saved, allow_urls=True).allow_urls
    for attempt in (
        lambda: processor(path, limits={"max_pixels": 1000}),
        lambda: processor(path, limits=ReadingLimits(max_pixels=1000)),
        lambda: strict(path),
        lambda: VidLaDAVideoProcessor.from_pretrained(tmp_path, limits={"max_pixels": 1000})(path),
    ):
        with pytest.raises(VideoReadingError, match="1000 pixels"):
            attempt()
    with pytest.raises(TypeError, match="`max_pixel` of `limits`. Did you mean `max_pixels`"):
        processor(path, limits={"max_pixel": 1000})


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


def test_an_empty_list_among_videos(processor, stills):
    with pytest.raises(ValueError, match="One of the videos is an empty list"):
        processor([[], stills])


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
        return processor(path, **options)["num_frames_per_video"].tolist()

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
