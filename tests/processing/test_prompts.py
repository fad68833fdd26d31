"""Prompts: equal to the official ones, the template, the sentence about times."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.video_utils import VideoMetadata

from vidlada_hf.processing.processing_vidlada import (
    VidLaDAProcessor,
)
from vidlada_hf.processing.prompts_vidlada import DEFAULT_SYSTEM_PROMPT, official_times, time_sentence, written_times

from ..clips import noise
from ..golden_model import PLACEHOLDER, case_names, find_case, golden_tokenizer, load_json, load_tensors
from .helpers import ask, inputs_of, small_processor

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
    return small_processor(golden_tokenizer(golden), timestamps="ordinal")


def as_recorded(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Recorded turns hold `<image>` for a video, as the official data does; all others are equal by default too."""
    return {"sanitize_control_tokens": not any("<image>" in str(message["content"]) for message in messages)}


def official_clip(golden: Path, name: str | None) -> dict[str, Any]:
    """The options that hand a recorded clip to the processor."""
    if name is None:
        return {}
    frames = load_tensors(golden, "preprocess") | load_tensors(golden, "e2e")
    tensors = {"clip_a.mp4": "fa.frames_u8_nhwc", "clip_b.mp4": "fb.frames_u8_nhwc", "clip_v.mp4": "video_u8_nhwc"}
    (recorded,) = (case["clips"][name] for case in load_json(golden, "prompts") if case["kind"] == "clips")
    video = frames[tensors[name]].numpy()
    return {"videos": [video], "video_metadata": [{"total_num_frames": len(video), "fps": recorded["avg_fps"]}]}


def collapsed(ids: torch.Tensor, placeholder: int) -> list[int]:
    """Ids with each run of placeholders as the official single one."""
    out: list[int] = []
    for token in ids.tolist():
        token = PLACEHOLDER if token == placeholder else token
        if not (token == PLACEHOLDER and out[-1:] == [PLACEHOLDER]):
            out.append(token)
    return out


def official_text(text: str) -> str:
    """A rendered prompt with the official name of the video's placeholder."""
    return text.replace("<video>", "<image>")


def assert_recorded_text(text: str, case: dict[str, Any], field: str) -> None:
    """`text` is the recorded one; the selection in the repository holds ids only, which are compared anyway."""
    assert text == case.get(field, text)


def test_every_recorded_prompt_is_compared(golden: Path) -> None:
    kinds = {case["kind"] for case in load_json(golden, "prompts")}
    assert kinds == {"train_sample", "eval_wrapper", "template", "clips"}


@pytest.mark.parametrize("name", case_names("prompts", kind="train_sample"))
def test_training_sample_equals_the_official_one(golden: Path, official: VidLaDAProcessor, name: str) -> None:
    case = find_case(golden, "prompts", name, kind="train_sample")
    roles = {"human": "user", "gpt": "assistant"}
    messages = [{"role": roles[turn["from"]], "content": turn["value"]} for turn in case["conversations"]]
    text = official.apply_chat_template(
        messages, think_mode=case["options"].get("think_mode"), official_prompt="training", **as_recorded(messages)
    )
    if not case["options"].get("add_time_instruction"):
        assert_recorded_text(text, case, "text_of_input_ids")
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
    assert_recorded_text(runs, case, "text_of_input_ids")


def eval_messages(case: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages of a wrapper case. The official code parses the text as JSON if it can, which ours never does."""
    context = case["context"]
    if case["name"] == "json_conversation":
        roles = {"human": "user", "gpt": "assistant"}
        return [{"role": roles[turn["from"]], "content": turn["value"]} for turn in json.loads(context)]
    if case["clip"] is None or "<image>" in context:
        return [{"role": "user", "content": context}]
    return [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": context}]}]


@pytest.mark.parametrize("name", case_names("prompts", kind="eval_wrapper"))
def test_evaluation_prompt_equals_the_official_one(golden: Path, official: VidLaDAProcessor, name: str) -> None:
    case = find_case(golden, "prompts", name, kind="eval_wrapper")
    settings_, arguments = case["wrapper_settings"], case["gen_kwargs"]
    messages = eval_messages(case)
    text = official.apply_chat_template(
        messages,
        add_generation_prompt=True,
        think_mode=arguments.get("think_mode"),
        official_prompt="inference",
        **as_recorded(messages),
    )
    if not settings_.get("add_time_instruction"):
        assert_recorded_text(official_text(text), case, "prompt")
    inputs = official(
        text=text,
        **official_clip(golden, case["clip"]),
        add_time_instruction=settings_.get("add_time_instruction", False),
        official_prompt="inference",
        max_frames=settings_.get("max_frames_num", 64),
        return_tensors="pt",
    )
    assert collapsed(inputs["input_ids"][0], official.video_token_id) == case["input_ids"]


@pytest.mark.parametrize("name", case_names("prompts", kind="template"))
def test_template_equals_the_official_one(golden: Path, official: VidLaDAProcessor, name: str) -> None:
    case = find_case(golden, "prompts", name, kind="template")
    messages = [{"role": ("user", "assistant")[at % 2], "content": content} for at, content in enumerate(case["turns"])]
    text = official.apply_chat_template(messages, add_generation_prompt=True, **as_recorded(messages))
    assert_recorded_text(text, case, "prompt")
    inputs = official(text=text, videos=noise(1), official_prompt="inference", return_tensors="pt")
    assert collapsed(inputs["input_ids"][0], official.video_token_id) == case["input_ids"]


@pytest.mark.parametrize("name", case_names("e2e"))
def test_end_to_end_prompt_equals_the_official_one(golden: Path, official: VidLaDAProcessor, name: str) -> None:
    case = find_case(golden, "e2e", name)
    settings_ = case["wrapper_settings"]
    video = load_tensors(golden, "e2e")[case["video"]].numpy()
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
    assert inputs["num_frames_per_video"].tolist() == [len(case["frame_idx"])]


def test_golden_tokenizer_gets_its_placeholders(golden: Path, official: VidLaDAProcessor) -> None:
    size = load_json(golden, "id_map")["vocab_size"]
    assert (official.image_token_id, official.video_token_id) == (size, size + 1)


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
        message = {"role": "user", "content": content}
        return processor.apply_chat_template([message], official_prompt="training", sanitize_control_tokens=False)

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


# -- the time sentence ------------------------------------------------------------------------------------------------


def test_official_times_count_frames_unless_resampled() -> None:
    strided = VideoMetadata(total_num_frames=10, fps=5.0, frames_indices=[0, 2, 4, 6, 8])
    assert official_times(strided, fps=2) == [0, 1, 2, 3, 4]
    resampled = VideoMetadata(total_num_frames=10, fps=5.0, frames_indices=[0, 4, 9])
    assert official_times(resampled, fps=2) == [0.0, 0.8, 1.8]


def test_time_sentence_of_recorded_samplings_is_the_official_one(golden: Path) -> None:
    compared = 0
    for case in load_json(golden, "frame_sampling"):
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
