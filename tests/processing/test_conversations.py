"""The visual parts of messages: consent to addresses, options of one video, images."""

import base64
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests import clips
from vidlada_hf.processing.addresses_vidlada import AllowedAddress
from vidlada_hf.processing.conversations_vidlada import VideoWithOptions, check_parts
from vidlada_hf.processing.video_reading_vidlada import VideoReadingError

from .helpers import ask, inputs_of, small_processor
from .servers import content, serve


@pytest.fixture
def clip(tmp_path):
    return str(clips.encode(tmp_path / "clip.mp4", frames=60, fps=20))


@pytest.fixture(scope="module")
def processor():
    return small_processor()


def about(*parts, text="What happens?"):
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


# -- options beside a video


def test_options_beside_a_video_hold_for_it_alone(processor, clip):
    messages = about(
        {"type": "video", "video": clip, "num_frames": 3},
        {"type": "video", "path": clip, "fps": 2.0},
        {"type": "video", "url": clip},
        {"type": "video", "video": clip, "fps": 10, "max_frames": 7, "force_sample": None},
    )
    inputs = inputs_of(processor, messages, num_frames=4, return_metadata=True)
    assert inputs["num_frames_per_video"].tolist() == [3, 6, 4, 7]
    assert [len(metadata.frames_indices) for metadata in inputs["video_metadata"]] == [3, 6, 4, 7]
    alone = [
        inputs_of(processor, about({"type": "video", "video": clip}), **options)["pixel_values_videos"]
        for options in ({"num_frames": 3}, {"fps": 2.0}, {"num_frames": 4}, {"fps": 10, "max_frames": 7})
    ]
    assert torch.equal(inputs["pixel_values_videos"], torch.cat(alone))
    tokens = (inputs["input_ids"] == processor.video_token_id).sum()
    assert tokens == processor.count_video_tokens(3 + 6 + 4 + 7, 28, 28)


def test_the_time_sentence_follows_a_video_s_own_options(processor, clip):
    messages = about({"type": "video", "video": clip, "fps": 4})
    own = inputs_of(processor, messages, num_frames=2, add_time_instruction=True, timestamps="ordinal")
    whole = inputs_of(
        processor, about({"type": "video", "video": clip}), fps=4, add_time_instruction=True, timestamps="ordinal"
    )
    assert torch.equal(own["input_ids"], whole["input_ids"])


def test_metadata_given_with_the_call_stay_with_their_videos(processor):
    frames = [frame for frame in clips.noise(12)]
    messages = about({"type": "video", "video": frames, "num_frames": 2}, {"type": "video", "video": frames})
    metadata = [{"fps": 4.0, "total_num_frames": 12}, {"fps": 6.0, "total_num_frames": 12}]
    inputs = inputs_of(processor, messages, fps=2, video_metadata=metadata, return_metadata=True)
    assert inputs["num_frames_per_video"].tolist() == [2, 4]
    assert [one.fps for one in inputs["video_metadata"]] == [4.0, 6.0]


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        ({"num_frame": 3}, "Unknown option `num_frame` of a message's video. Did you mean `num_frames`"),
        ({"nframes": 3}, "`nframes`"),
        ({"num_frames": 3, "fps": 2}, "two ways to choose frames"),
        ({"num_frames": 0}, "`num_frames=0` is impossible"),
        ({"fps": "fast"}, "`fps='fast'` is impossible"),
        ({"num_frames": 2, "do_sample_frames": False}, "has no effect"),
        ({"sample_by": "luck"}, "luck"),
        ({"url": "b.mp4"}, "'video' and 'url': give one"),
        ({"video": []}, "empty list"),
        ({"video": ()}, "empty list"),
        ({"video": [[]]}, "list of 0 videos"),
        ({"video": ["a.mp4", "b.mp4"]}, "list of 2 videos: give each a part of its own"),
    ],
    ids=str,
)
def test_impossible_parts(processor, clip, part, problem):
    with pytest.raises(ValueError, match=problem):
        inputs_of(processor, about({"type": "video", "video": clip} | part))


def test_images_take_no_options(processor):
    with pytest.raises(ValueError, match="`num_frames` of a message's image"):
        inputs_of(processor, about({"type": "image", "image": Image.new("RGB", (8, 8)), "num_frames": 3}))


def test_what_was_given_is_not_changed(clip):
    messages = about({"type": "video", "url": clip, "num_frames": 3, "path": None}, {"type": "image"})
    before = repr(messages)
    (checked,) = check_parts(messages)
    assert repr(messages) == before
    assert isinstance(checked["content"][0]["video"], VideoWithOptions)
    assert checked["content"][1:] == [{"type": "image"}, {"type": "text", "text": "What happens?"}]
    assert check_parts([{"role": "user", "content": "text"}]) == [{"role": "user", "content": "text"}]


# -- addresses


@pytest.mark.parametrize("key", ["video", "path"])
def test_only_the_key_url_is_consent(processor, clip, key):
    page = {"/clip.mp4": content(Path(clip).read_bytes())}
    with serve(page) as host:
        address = f"{host}/clip.mp4"
        with pytest.raises(VideoReadingError, match="allow_urls=True"):
            inputs_of(processor, about({"type": "video", key: address}), num_frames=2)
        with pytest.raises(VideoReadingError, match="allow_private_urls=True"):
            inputs_of(processor, about({"type": "video", "url": address}), num_frames=2)
        here = {"allow_private_urls": True, "num_frames": 2}
        expected = inputs_of(processor, about({"type": "video", "video": clip}), num_frames=2)["pixel_values_videos"]
        for part, options in (({"url": address}, here), ({key: address}, here | {"allow_urls": True})):
            inputs = inputs_of(processor, about({"type": "video", **part}), **options)
            assert torch.equal(inputs["pixel_values_videos"], expected)
        with pytest.raises(VideoReadingError, match="allow_urls=True"):
            processor.video_processor(address, num_frames=2)


def test_addresses_of_images(processor, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(next(clips.pictures(1))).save(path)
    text = base64.b64encode(path.read_bytes()).decode()
    expected = inputs_of(processor, about({"type": "image", "image": Image.open(path)}))["pixel_values"]
    with serve({"/a.png": content(path.read_bytes())}) as host:
        address = f"{host}/a.png"
        for part in (
            {"type": "image", "url": address},
            {"type": "image_url", "image_url": {"url": address}},
            {"type": "image", "base64": text},
            {"type": "image", "path": str(path)},
            {"type": "image", "image": path},
        ):
            inputs = inputs_of(processor, about(part), allow_private_urls=True)
            assert torch.equal(inputs["pixel_values"], expected)
        for part, problem in (({"image": address}, "allow_urls=True"), ({"url": address}, "allow_private_urls=True")):
            with pytest.raises(VideoReadingError, match=problem):
                inputs_of(processor, about({"type": "image", **part}))


def test_limits_hold_for_images_too(processor, tmp_path):
    path = tmp_path / "a.png"
    Image.new("1", (600, 400)).save(path)
    message = about({"type": "image", "path": str(path)})
    with pytest.raises(VideoReadingError, match=r"Cannot read an image: .* 600x400 has more than 100000 pixels"):
        inputs_of(processor, message, limits={"max_pixels": 100_000})
    assert len(inputs_of(processor, message)["pixel_values"]) == 1


def test_frames_behind_addresses(processor):
    (checked,) = check_parts(about({"type": "video", "url": ["https://a.b/1.png", "https://a.b/2.png"]}))
    assert all(type(frame) is AllowedAddress for frame in checked["content"][0]["video"].source)
    with pytest.raises(VideoReadingError, match="allow_urls=True"):
        inputs_of(processor, about({"type": "video", "video": ["https://a.b/1.png", "https://a.b/2.png"]}))


def test_each_part_is_one_video_whatever_it_is(processor, tmp_path):
    """Two still pictures in a list would be two frames of one video."""
    pictures, paths = list(clips.pictures(3)), [tmp_path / f"{i}.png" for i in range(3)]
    for picture, path in zip(pictures, paths, strict=True):
        Image.fromarray(picture).save(path)
    for sources in (pictures, paths, [path.read_bytes() for path in paths], [[path] for path in paths]):
        inputs = inputs_of(processor, about(*({"type": "video", "video": source} for source in sources)))
        assert inputs["num_frames_per_video"].tolist() == [1, 1, 1]
        assert torch.equal(inputs["pixel_values_videos"], processor.video_processor(pictures)["pixel_values_videos"])
    inputs = inputs_of(processor, about({"type": "video", "video": paths[:2]}, {"type": "video", "path": paths[2]}))
    assert inputs["num_frames_per_video"].tolist() == [2, 1]


def test_a_row_of_datasets_is_a_video(processor, clip):
    row = {"bytes": Path(clip).read_bytes(), "path": "clip.mp4"}
    expected = inputs_of(processor, about({"type": "video", "video": clip}), num_frames=2)["pixel_values_videos"]
    inputs = inputs_of(processor, about({"type": "video", "video": row}), num_frames=2)
    assert torch.equal(inputs["pixel_values_videos"], expected)
    assert np.array_equal(processor.video_processor(row, num_frames=2)["pixel_values_videos"], expected)


def test_a_video_that_several_chats_name_is_read_once():
    processor, video, other = small_processor(), clips.noise(4), clips.noise(3, seed=1)
    chats = [ask(video, "What?"), ask(other, "Why?"), ask(video, "Which?")]
    expected = [inputs_of(processor, chat, num_frames=2) for chat in chats]
    read, preprocess = [], processor.video_processor.preprocess
    processor.video_processor.preprocess = lambda videos, **options: (
        read.extend(videos) or preprocess(videos, **options)
    )
    inputs = inputs_of(processor, chats, num_frames=2)
    assert len(read) == 2
    assert torch.equal(inputs["pixel_values_videos"], torch.cat([one["pixel_values_videos"] for one in expected]))
    assert inputs["num_frames_per_video"].tolist() == [2, 2, 2]
    chats[2][0]["content"][0]["num_frames"] = 3  # other options: another reading
    read.clear()
    assert inputs_of(processor, chats, num_frames=2)["num_frames_per_video"].tolist() == [2, 2, 3] and len(read) == 3
