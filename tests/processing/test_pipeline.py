"""The pipeline: the same answers as the model gives by hand, alone and in batches, and errors that name the option."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset
from transformers import pipeline

from vidlada_hf import EMBEDDED_CHECKPOINT
from vidlada_hf.processing.pipeline_vidlada import VideoTextToTextPipeline

from ..clips import encode, noise
from ..golden_model import case_names, find_case, golden_model, golden_processor, load_tensors
from ..tiny_models import build_tiny
from .helpers import ask
from .servers import content, serve

GENERATE = {"max_new_tokens": 4, "block_length": 2}


def small_pipeline(**options: Any) -> VideoTextToTextPipeline:
    """A pipeline with random weights whose answers depend on everything they are given."""
    model, processor = build_tiny()
    return VideoTextToTextPipeline(model=model, processor=processor, task="video-text-to-text", device="cpu", **options)


@pytest.fixture(scope="module")
def pipe() -> VideoTextToTextPipeline:
    return small_pipeline()


def by_hand(pipe: VideoTextToTextPipeline, video: Any, question: str, **options: Any) -> str:
    """The answer without the pipeline."""
    inputs = pipe.processor.apply_chat_template(
        ask(video, question),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs=options,
    )
    sequences = pipe.model.generate(**inputs, **GENERATE)
    answer = sequences[:, inputs["input_ids"].shape[1] :]
    return pipe.processor.batch_decode(answer, skip_special_tokens=True)[0].strip()


def texts(outputs: list[list[dict[str, Any]]]) -> list[str]:
    return [output[0]["generated_text"] for output in outputs]


# -- one request ------------------------------------------------------------------------------------------------------


def test_a_video_and_a_question_give_the_answer(pipe: VideoTextToTextPipeline) -> None:
    expected = by_hand(pipe, noise(6), "What?", num_frames=3)
    assert expected  # random weights, but the comparison would mean nothing with an empty answer
    assert pipe(noise(6), text="What?", num_frames=3, **GENERATE) == [
        {"input_text": "What?", "generated_text": expected}
    ]


def test_all_ways_to_ask_are_the_same(pipe: VideoTextToTextPipeline) -> None:
    video, expected = noise(3), by_hand(pipe, noise(3), "What?")
    ways: list[Callable[[], Any]] = [
        lambda: pipe(video, text="What?", **GENERATE),
        lambda: pipe(list(video), text="What?", **GENERATE),
        lambda: pipe({"video": video, "text": "What?"}, **GENERATE),
        lambda: pipe(ask(video, "What?"), **GENERATE),
        lambda: pipe(text=ask(video, "What?"), **GENERATE),
        lambda: pipe(video, text="What?", generate_kwargs=GENERATE),
        lambda: pipe(video=video, text="What?", **GENERATE),
    ]
    for way in ways:
        assert way()[0]["generated_text"] == expected


def test_options_of_stock_callers_reach_generate(pipe: VideoTextToTextPipeline) -> None:
    expected = by_hand(pipe, noise(3), "What?")
    for stock in ({"do_sample": False}, {"use_cache": True, "num_beams": 1}, {"top_p": None, "synced_gpus": False}):
        assert pipe(noise(3), text="What?", **GENERATE, **stock)[0]["generated_text"] == expected
    with pytest.raises(ValueError, match="`num_beams=4` belongs to autoregressive decoding"):
        pipe(noise(3), text="What?", **GENERATE, num_beams=4)


def test_a_question_without_a_video_is_answered(pipe: VideoTextToTextPipeline) -> None:
    assert pipe(text="What?", **GENERATE)[0]["generated_text"] == by_hand(pipe, None, "What?")


def test_full_text_is_the_conversation_with_the_answer(pipe: VideoTextToTextPipeline) -> None:
    chat = ask(noise(2), "What?")
    (output,) = pipe(chat, return_full_text=True, **GENERATE)
    assert output["generated_text"][:-1] == chat == output["input_text"]
    assert output["generated_text"][-1] == {"role": "assistant", "content": by_hand(pipe, noise(2), "What?")}


def continued(pipe: VideoTextToTextPipeline, conversation: Any) -> tuple[list[int], list[int]]:
    """Prompt and new ids of a conversation that is gone on with, without the pipeline."""
    inputs = pipe.processor.apply_chat_template(
        conversation, tokenize=True, return_dict=True, return_tensors="pt", continue_final_message=True
    )
    sequences = pipe.model.generate(**inputs, **GENERATE)
    length = inputs["input_ids"].shape[1]
    return sequences[0, :length].tolist(), sequences[0, length:].tolist()


@pytest.mark.parametrize("begun", ["there are", "there are ", [{"type": "text", "text": "there are"}]])
def test_a_begun_answer_is_gone_on_with(pipe: VideoTextToTextPipeline, begun: Any) -> None:
    chat = [*ask(noise(2), "How many?"), {"role": "assistant", "content": begun}]
    prompt, new = continued(pipe, chat)
    decode = pipe.processor.tokenizer.decode
    assert decode(prompt).endswith("<|end_header_id|>\n\nthere are")
    expected = decode([*prompt, *new], skip_special_tokens=True).removeprefix(decode(prompt, skip_special_tokens=True))
    (output,) = pipe(chat, **GENERATE)
    assert output["generated_text"] == expected.rstrip() and output["input_text"] == chat
    (output,) = pipe(chat, return_full_text=True, **GENERATE)
    *earlier, last = output["generated_text"]
    assert earlier == chat[:-1] and last["role"] == "assistant"
    said = last["content"] if isinstance(begun, str) else last["content"][0]["text"]
    assert said.split() == ("there are" + expected).split() and "  " not in said.removesuffix(expected.rstrip())
    assert chat[-1]["content"] == begun


def test_begun_answers_and_questions_share_a_batch(pipe: VideoTextToTextPipeline) -> None:
    chats = [[*ask(noise(2), "How many?"), {"role": "assistant", "content": "there are"}], ask(noise(1), "What?")]
    alone = [pipe(chat, return_full_text=True, **GENERATE)[0]["generated_text"] for chat in chats]
    together = pipe(chats, batch_size=2, return_full_text=True, **GENERATE)
    assert [output[0]["generated_text"] for output in together] == alone
    assert [len(messages) for messages in alone] == [2, 2]


def test_an_answer_that_says_nothing_yet_is_begun_anew(pipe: VideoTextToTextPipeline) -> None:
    chat = ask(noise(2), "What?")
    expected = pipe(chat, return_full_text=True, **GENERATE)[0]["generated_text"]
    for nothing in ("", " ", [{"type": "text", "text": ""}]):
        begun = [*chat, {"role": "assistant", "content": nothing}]
        for options in ({}, {"continue_final_message": True}):
            (output,) = pipe(begun, return_full_text=True, **options, **GENERATE)
            assert output["generated_text"] == expected


def test_a_second_answer_is_given_if_asked_for(pipe: VideoTextToTextPipeline) -> None:
    chat = [*ask(noise(2), "How many?"), {"role": "assistant", "content": "two"}]
    (output,) = pipe(chat, continue_final_message=False, return_full_text=True, **GENERATE)
    assert [message["role"] for message in output["generated_text"]] == ["user", "assistant", "assistant"]
    with pytest.raises(ValueError, match="`continue_final_message` must be one of True, False, got 'no'"):
        pipe(chat, continue_final_message="no")


def test_words_of_a_decoder_that_joins_them_stay_apart() -> None:
    pipe = pipeline("video-text-to-text", model=str(EMBEDDED_CHECKPOINT), device="cpu")
    chat = [*ask(noise(2), "How many shapes are there?"), {"role": "assistant", "content": "there are"}]
    text = pipe(chat, return_full_text=True, max_new_tokens=4)[0]["generated_text"][-1]["content"]
    assert text.startswith("there are ") or text == "there are"
    (output,) = pipe(chat, max_new_tokens=4)
    assert "there are" + output["generated_text"] == text


def test_a_text_longer_than_the_model_is_refused_before_the_video_is_read(pipe: VideoTextToTextPipeline) -> None:
    with pytest.raises(ValueError, match=r"takes 1\d{5} tokens, and the model has 16384 positions: shorten it"):
        pipe("absent.mp4", text="x" * 100_000, **GENERATE)


def test_options_of_the_processor_reach_it(pipe: VideoTextToTextPipeline) -> None:
    metadata = {"video_metadata": [{"total_num_frames": 6, "fps": 2.0}]}
    flat = pipe.preprocess(
        {"video": noise(6), "text": "Q?"}, num_frames=2, add_time_instruction=True, think_mode="think", **metadata
    )
    text = pipe.processor.decode(flat["input_ids"][0])
    assert "2 frames are uniformly sampled" in text and "Q?/think<|eot_id|>" in text
    assert text.endswith("<|start_header_id|>assistant<|end_header_id|>\n\n")
    nested = pipe.preprocess({"video": noise(6), "text": "Q?"}, processor_kwargs={"num_frames": 2})
    assert nested["num_frames_per_video"].tolist() == [2]


def test_options_given_at_construction_are_defaults() -> None:
    pipe = small_pipeline(num_frames=2, return_full_text=True, **GENERATE)
    assert pipe(noise(6), text="What?")[0]["generated_text"][-1]["content"] == by_hand(
        pipe, noise(6), "What?", num_frames=2
    )
    other = pipe(noise(6), text="What?", num_frames=4, return_full_text=False)
    assert other[0]["generated_text"] == by_hand(pipe, noise(6), "What?", num_frames=4)


def test_stop_strings_find_the_tokenizer(pipe: VideoTextToTextPipeline) -> None:
    answer = by_hand(pipe, noise(2), "What?")
    stop = answer[-1]
    (output,) = pipe(noise(2), text="What?", stop_strings=[stop], **GENERATE)
    assert stop not in output["generated_text"]


# -- many requests ----------------------------------------------------------------------------------------------------

REQUESTS = [(1, "What?"), (5, "Which color is the shape on the left?"), (2, "Why"), (3, "")]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4])
def test_batches_of_different_videos_are_exact(pipe: VideoTextToTextPipeline, batch_size: int) -> None:
    videos = [noise(frames, seed=seed) for seed, (frames, _) in enumerate(REQUESTS)]
    questions = [question for _, question in REQUESTS]
    expected = [by_hand(pipe, video, question) for video, question in zip(videos, questions, strict=True)]
    assert len(set(expected)) > 1
    outputs = pipe(videos, text=questions, batch_size=batch_size, **GENERATE)
    assert texts(outputs) == expected
    assert [output[0]["input_text"] for output in outputs] == questions
    chats = [ask(video, question) for video, question in zip(videos, questions, strict=True)]
    assert texts(pipe(chats, batch_size=batch_size, **GENERATE)) == expected


def test_no_frame_is_made_up_in_a_batch(pipe: VideoTextToTextPipeline) -> None:
    items = [pipe.preprocess({"video": noise(frames), "text": text}) for frames, text in REQUESTS]
    batch = pipe.collate(items)
    assert batch["num_frames_per_video"].tolist() == [frames for frames, _ in REQUESTS]
    assert torch.equal(batch["pixel_values_videos"], torch.cat([item["pixel_values_videos"] for item in items]))
    assert batch["attention_mask"].sum(1).tolist() == [item["input_ids"].shape[1] for item in items]


def test_a_batch_may_mix_videos_images_and_text(pipe: VideoTextToTextPipeline) -> None:
    image = [{"role": "user", "content": [{"type": "image", "image": noise(1)[0]}, {"type": "text", "text": "This?"}]}]
    chats = [ask(None, "Nothing?"), ask(noise(2), "What?"), image, ask(noise(1), "Which?")]
    alone = texts([pipe(chat, **GENERATE) for chat in chats])
    assert texts(pipe(chats, batch_size=4, **GENERATE)) == alone


def test_one_question_is_asked_about_every_video_and_the_reverse(pipe: VideoTextToTextPipeline) -> None:
    outputs = pipe([noise(2), noise(3)], text="What?", **GENERATE)
    assert texts(outputs) == [by_hand(pipe, noise(2), "What?"), by_hand(pipe, noise(3), "What?")]
    outputs = pipe(noise(2), text=["What?", "Why?"], **GENERATE)
    assert texts(outputs) == [by_hand(pipe, noise(2), "What?"), by_hand(pipe, noise(2), "Why?")]
    assert len(pipe([noise(2)], text="What?", **GENERATE)[0]) == 1


def test_datasets_and_generators_are_answered_one_by_one(pipe: VideoTextToTextPipeline) -> None:
    class Requests(Dataset):
        def __len__(self) -> int:
            return len(REQUESTS)

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"video": noise(REQUESTS[index][0]), "text": REQUESTS[index][1]}

    def generator() -> Iterator[dict[str, Any]]:
        yield from ({"video": noise(frames), "text": text} for frames, text in REQUESTS)

    expected = [by_hand(pipe, noise(frames), text) for frames, text in REQUESTS]
    assert texts(list(pipe(Requests(), batch_size=3, **GENERATE))) == expected
    assert texts(list(pipe(Requests(), batch_size=2, num_workers=1, **GENERATE))) == expected
    assert texts(list(pipe(generator(), **GENERATE))) == expected


# -- many questions about one video -----------------------------------------------------------------------------------


class Count:
    """Calls of a method, which is still called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        self.calls = 0
        method = getattr(owner, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            return method(*arguments, **options)

        monkeypatch.setattr(owner, name, counted)


QUESTIONS = ["What?", "Which color is it?", "Why"]


@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, 1])
def test_one_video_is_read_and_encoded_once(pipe, monkeypatch, tmp_path: Path, batch_size: int, workers: int) -> None:
    path = str(encode(tmp_path / "clip.mp4", frames=6))
    expected = [by_hand(pipe, path, question, num_frames=3) for question in QUESTIONS]
    read = Count(monkeypatch, pipe.processor.video_processor, "preprocess")
    encoded = Count(monkeypatch, pipe.model, "get_video_features")
    options = {"num_frames": 3, "batch_size": batch_size, "num_workers": workers, **GENERATE}
    outputs = pipe(path, text=QUESTIONS, return_full_text=True, **options)
    assert [output[0]["generated_text"][-1]["content"] for output in outputs] == expected
    assert outputs[0][0]["generated_text"][0]["content"][0] == {"type": "video", "video": path}
    assert encoded.calls == 1 and read.calls == (0 if workers else 1)  # a worker counts in its own process


@pytest.mark.parametrize("batch_size", [1, 3])
def test_sharing_a_video_is_asked_for(pipe, monkeypatch, batch_size: int) -> None:
    video = noise(6)
    inputs = pipe.processor.apply_chat_template(
        ask(video, "What?"), tokenize=True, return_dict=True, return_tensors="pt", processor_kwargs={"num_frames": 3}
    )
    cache, expected = pipe.model.encode_video(**inputs), []
    for question in QUESTIONS:
        ids = pipe.preprocess({"video": video, "text": question}, num_frames=3)["input_ids"]
        answer = pipe.model.generate(ids, video_cache=cache, **GENERATE)[:, ids.shape[1] :]
        expected.append(pipe.processor.batch_decode(answer, skip_special_tokens=True)[0].strip())
    options = {"num_frames": 3, "batch_size": batch_size, "share_video": True, **GENERATE}
    encoded = Count(monkeypatch, pipe.model, "encode_video")
    assert texts(pipe(video, text=QUESTIONS, **options)) == expected
    assert encoded.calls == 1
    assert texts(pipe([ask(video, question) for question in QUESTIONS], **options)) == expected
    assert pipe(video, text="What?", **options)[0]["generated_text"] == expected[0]


def test_what_cannot_share_a_video_is_refused_by_name(pipe) -> None:
    with pytest.raises(ValueError, match="`cfg_scale` also runs prompts without their video"):
        pipe(noise(2), text=["What?", "Why?"], share_video=True, cfg_scale=1.0)
    with pytest.raises(ValueError, match="Prompt 1 does not begin|Prompt 1 shows another video"):
        pipe([noise(2), noise(2, seed=1)], text="What?", share_video=True, batch_size=2, **GENERATE)
    content = [{"type": "text", "text": "Look:"}, {"type": "video", "video": noise(2)}, {"type": "text", "text": "?"}]
    for chat in (
        [{"role": "user", "content": content}],
        [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes?"}, *ask(noise(2), "What?")],
    ):
        with pytest.raises(ValueError, match="the text 'Look:|the text 'Hello'.* write the video first"):
            pipe(chat, share_video=True)
    with pytest.raises(ValueError, match="`share_video` must be one of True, False"):
        pipe(noise(2), text="What?", share_video="yes")
    system = [{"role": "system", "content": "Be brief."}, *ask(noise(2), "What?")]
    assert pipe(system, share_video=True, **GENERATE)


# -- choices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"share_video": True}])
def test_choices_are_ranked_by_their_likelihood(pipe, options: dict[str, Any]) -> None:
    choices = ["a", "bc", "d"]
    items = [pipe.preprocess({"video": noise(3), "text": question}) for question in QUESTIONS]
    expected = []
    for item in items:
        item.pop("request")
        scores = pipe.model.score_choices(**item, choices=choices, tokenizer=pipe.processor.tokenizer, **options)
        expected.append(dict(zip(choices, scores[0].tolist(), strict=True)))
    for batch_size in (1, 3):
        outputs = pipe(noise(3), text=QUESTIONS, choices=choices, batch_size=batch_size, **options)
        for (output,), scores in zip(outputs, expected, strict=True):
            found = dict(zip(output["choices"], output["log_likelihoods"], strict=True))
            assert found == pytest.approx(scores, abs=1e-3)
            assert output["log_likelihoods"] == sorted(found.values(), reverse=True)
            assert output["generated_text"] == output["choices"][0]


def test_each_question_may_have_its_own_choices() -> None:
    pipe = small_pipeline(**GENERATE)  # defaults of answers that are generated do not matter
    outputs = pipe(noise(3), text=QUESTIONS[:2], choices=[["a", "b"], ["x", "y", "z"]])
    assert [sorted(output[0]["choices"]) for output in outputs] == [["a", "b"], ["x", "y", "z"]]
    request = {"video": noise(3), "text": QUESTIONS[0], "choices": ["a", "b"]}
    assert pipe(request)[0]["choices"] == outputs[0][0]["choices"]
    one = pipe(ask(noise(3), QUESTIONS[0]), choices=["a", "b"], normalize="token", return_full_text=True)
    assert one[0]["generated_text"][-1]["content"] == one[0]["choices"][0]


def test_scores_of_choices_do_not_depend_on_the_batch(pipe) -> None:
    lists = [["a", "b"], ["a", "bc d"], ["x", "y z", "w"]]
    alone, together = (pipe(noise(3), text=QUESTIONS[:3], choices=lists, batch_size=size) for size in (1, 3))
    for (one,), (other,) in zip(alone, together, strict=True):
        assert one["choices"] == other["choices"]
        assert one["log_likelihoods"] == pytest.approx(other["log_likelihoods"], abs=1e-3)


def test_lists_of_choices_are_for_chats_and_for_the_constructor_too() -> None:
    lists = [["a", "b"], ["x", "y", "z"]]
    chats = [ask(noise(3), question) for question in QUESTIONS[:2]]
    made = small_pipeline(choices=lists)
    for outputs in (small_pipeline()(chats, choices=lists), made(chats), made(noise(3), text=QUESTIONS[:2])):
        assert [sorted(output[0]["choices"]) for output in outputs] == lists
    for requests in (chats[0], {"video": noise(3), "text": "What?"}, (chat for chat in chats)):
        with pytest.raises(ValueError, match="Lists of choices belong to a list of questions"):
            list(made(requests))


def test_a_begun_answer_goes_on_with_a_choice_and_its_blank(pipe) -> None:
    chat = [*ask(noise(2), "What is it?"), {"role": "assistant", "content": "it is the"}]
    (output,) = pipe(chat, choices=[" cross", " bar"], return_full_text=True)
    assert output["generated_text"][-1]["content"] == "it is the" + output["choices"][0]


def test_the_video_that_is_kept_is_no_option(pipe) -> None:
    with pytest.raises(ValueError, match="`video_once`"):
        pipe(noise(2), text="What?", video_once=None)


@pytest.mark.parametrize(
    ("choices", "options", "message"),
    [
        (["a"], {}, "At least two choices"),
        ([], {}, "At least two choices"),
        ("ab", {}, "must be a list of texts"),
        (["a", " "], {}, "an empty one"),
        (["a", "b", "a "], {}, "a repeated one"),
        (["a", 1], {}, "must be a list of texts"),
        ([["a", "b"], ["c"]], {}, "At least two choices"),
        ([["a", "b"]], {}, "2 questions and 1 lists"),
        (["a", "b"], {"temperature": 0.5}, "leave out `temperature`"),
        (["a", "b"], {"streamer": None}, "leave out `streamer`"),
        (["a", "b"], {"generate_kwargs": GENERATE}, "leave out `max_new_tokens`"),
        ([["a", "b"], ["c", "d"]], {"temperature": 0.5}, "leave out `temperature`"),
        (["a", "b"], {"normalise": "token"}, "Did you mean `normalize`"),
    ],
)
def test_impossible_choices_say_what_is_wrong(pipe, choices: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipe(noise(2), text=["What?", "Why?"], choices=choices, **options)


# -- parity with the official evaluation ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", case_names("e2e"))
def test_recorded_answers_from_frames_to_text(golden: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = find_case(golden, "e2e", name)
    video = load_tensors(golden, "e2e")[case["video"]].numpy()
    settings = case["wrapper_settings"]
    newlines = settings.get("mm_newline_position", "grid")
    model = golden_model(golden)
    monkeypatch.setattr(model.config, "newline_position", newlines)
    processor = golden_processor(golden, newline_position=newlines, timestamps="ordinal", official_prompt="inference")
    pipe = VideoTextToTextPipeline(model=model, processor=processor, device="cpu")
    arguments = case["generate_kwargs"]
    (output,) = pipe(
        video,
        text=case["question"],
        video_metadata=[{"total_num_frames": len(video), "fps": case["avg_fps"]}],
        max_frames=settings["max_frames_num"],
        force_sample=settings["force_sample"],
        fps=settings.get("video_fps", 1),
        add_time_instruction=settings.get("add_time_instruction", False),
        think_mode=case["gen_kwargs"].get("think_mode"),
        **{
            name: arguments[name] for name in ("gen_length", "block_length", "steps", "cfg", "remasking", "temperature")
        },
        stopping_criteria=arguments["stopping_criteria"],
    )
    assert output["generated_text"] == case["result"].strip()


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ({"num_frmes": 2}, "num_frames"),
        ({"retrun_full_text": True}, "return_full_text"),
        ({"max_new_token": 2}, "max_new_tokens"),
        ({"thinkmode": "think"}, "think_mode"),
    ],
)
def test_a_misspelled_option_raises_with_the_nearest_name(
    pipe: VideoTextToTextPipeline, wrong: dict[str, Any], near: str
) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}.*{near}"):
        pipe(noise(2), text="What?", **wrong)


def test_official_names_of_generate_pass_through(pipe: VideoTextToTextPipeline) -> None:
    output = pipe(noise(2), text="What?", gen_length=4, block_length=2, steps=4)
    assert output[0]["generated_text"] == by_hand(pipe, noise(2), "What?")


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((), {}, "Give a video"),
        (("clip.mp4",), {}, "no question"),
        (("clip.mp4",), {"video": "clip.mp4", "text": "What?"}, "give one of them"),
        ((["clip.mp4"],), {}, "no question"),
        ((["a.mp4", "b.mp4"],), {"text": ["1", "2", "3"]}, "2 videos and 3 questions"),
        (({"video": "a.mp4", "text": "Q?", "txt": ""},), {}, "'txt'"),
        (({"video": "a.mp4"},), {}, "A request is"),
        (("a.mp4",), {"text": ask(None, "Q?")}, "belong into its messages"),
        (("a.mp4",), {"text": "Q?", "max_new_tokens": 2, "generate_kwargs": {"max_new_tokens": 2}}, "given twice"),
    ],
)
def test_impossible_requests_say_what_is_wrong(
    pipe: VideoTextToTextPipeline, arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pipe(*arguments, **options)


def test_a_file_that_cannot_be_read_stops_the_request(pipe: VideoTextToTextPipeline, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="absent.mp4"):
        pipe(str(tmp_path / "absent.mp4"), text="What?", **GENERATE)


# -- saving and the factory -------------------------------------------------------------------------------------------


def test_the_next_video_is_read_while_one_is_answered(
    pipe: VideoTextToTextPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_second = threading.Event()
    preprocess, forward = pipe.preprocess, pipe._forward

    def read(request: Any, **options: Any) -> Any:
        if request["text"] == "second":
            read_second.set()
        return preprocess(request, **options)

    def answer(inputs: Any, **options: Any) -> Any:
        if inputs["request"].input_text == "first":
            assert read_second.wait(20), "the second video waits for the first answer"
        return forward(inputs, **options)

    monkeypatch.setattr(pipe, "preprocess", read)
    monkeypatch.setattr(pipe, "_forward", answer)
    questions = ["first", "second", "third"]
    outputs = pipe(noise(3), text=questions, **GENERATE)
    assert [output[0]["input_text"] for output in outputs] == questions
    with pytest.raises(ValueError, match="is not a video"):  # an error of the thread is the caller's
        pipe([noise(3), 7, noise(3)], text="What?", **GENERATE)


def test_addresses_are_fetched_if_allowed(pipe: VideoTextToTextPipeline, tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", frames=4)
    expected = pipe(str(path), text="What?", num_frames=2, **GENERATE)
    with serve({"/clip.mp4": content(path.read_bytes())}) as host:
        here = {"num_frames": 2, "allow_private_urls": True, **GENERATE}
        with pytest.raises(ValueError, match="allow_urls=True"):
            pipe(f"{host}/clip.mp4", text="What?", **here)
        assert pipe(f"{host}/clip.mp4", text="What?", allow_urls=True, **here) == expected
        messages = [
            {
                "role": "user",
                "content": [{"type": "video", "url": f"{host}/clip.mp4"}, {"type": "text", "text": "What?"}],
            }
        ]
        assert pipe(messages, **here)[0]["generated_text"] == expected[0]["generated_text"]


def test_saved_pipeline_loads_through_the_factory(pipe: VideoTextToTextPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "processor_config.json").read_text())["processor_class"] == "VidLaDAProcessor"
    again = pipeline("video-text-to-text", model=str(tmp_path), device="cpu")
    assert isinstance(again, VideoTextToTextPipeline)
    video = np.ascontiguousarray(noise(4))
    assert again(video, text="What?", **GENERATE) == pipe(video, text="What?", **GENERATE)


@pytest.mark.parametrize("task", ["image-text-to-text", "any-to-any"])
def test_built_in_pipelines_run_the_saved_folder(pipe: VideoTextToTextPipeline, tmp_path: Path, task: str) -> None:
    pipe.save_pretrained(tmp_path)
    built_in = pipeline(task, model=str(tmp_path), device="cpu")
    image = [{"role": "user", "content": [{"type": "image", "image": str(tmp_path / "image.png")}]}]
    image[0]["content"].append({"type": "text", "text": "What?"})
    Image.fromarray(noise(1)[0]).save(tmp_path / "image.png")
    outputs = built_in(text=image, return_full_text=False, generate_kwargs=GENERATE)
    assert outputs[0]["generated_text"].strip() == pipe(image, **GENERATE)[0]["generated_text"]
