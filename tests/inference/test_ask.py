import pytest
import torch

from tests.clips import encode
from tests.tiny_models import build_tiny
from vidlada_hf import VidLaDAForConditionalGeneration, VidLaDAProcessor
from vidlada_hf.inference.ask import ask, ask_each
from vidlada_hf.processing.video_reading_vidlada import VideoReadingError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A random tiny checkpoint."""
    folder = tmp_path_factory.mktemp("ask") / "tiny"
    for part in build_tiny():
        part.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Three seconds of H.264."""
    return str(encode(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=36, fps=12))


def test_an_answer_says_how_it_was_made(checkpoint, clip):
    answer = ask(clip, "What?", checkpoint, fps=2, max_new_tokens=16, max_denoising_steps=8)
    assert (answer.question, answer.video, answer.model, answer.frames) == ("What?", clip, checkpoint, 6)
    assert answer.settings["max_denoising_steps"] == 8 and answer.seconds > 0 and answer.tokens_per_forward >= 2
    again = ask(clip, "What?", checkpoint, fps=2, max_new_tokens=16, max_denoising_steps=8)
    assert again.answer == answer.answer


def test_a_seed_repeats_an_answer(checkpoint, clip):
    settings = {"num_frames": 2, "max_new_tokens": 8, "temperature": 1.0}
    answers = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(answers))
        answers.append(ask(clip, "What?", checkpoint, seed=seed, **settings).answer)
    assert answers[0] == answers[1] != answers[2]


def test_mistakes_are_found_before_the_weights_are_loaded(checkpoint, clip, monkeypatch):
    monkeypatch.setattr("vidlada_hf.inference.ask.load_network", None)
    with pytest.raises(ValueError, match="`block_length` .5. does not divide"):
        ask(clip, "What?", checkpoint, max_new_tokens=16, block_length=5)
    with pytest.raises(ValueError, match="missing.mp4"):
        ask("missing.mp4", "What?", checkpoint)
    for question, message in (("a\udc80", "half a character"), ("x" * 100_000, "has 16384 positions: shorten it")):
        with pytest.raises(ValueError, match=message):
            ask("missing.mp4", question, checkpoint)
    with pytest.raises(ValueError, match="answer up to 16384 .* the model has 16384 positions"):
        ask(clip, "What?", checkpoint, max_new_tokens=16384)
    with pytest.raises(FileNotFoundError, match="no/such/folder is no folder"):
        ask(clip, "What?", "no/such/folder")


def test_an_address_is_fetched_only_if_allowed(checkpoint, clip):
    for options, problem in (({}, "allow_urls=True"), ({"allow_urls": True}, "allow_private_urls=True")):
        with pytest.raises(VideoReadingError, match=problem):
            ask("http://127.0.0.1:1/a.mp4", "What?", checkpoint, **options)
    assert ask(clip, "What?", checkpoint, num_frames=2, max_new_tokens=4, allow_urls=True).frames == 2


QUESTIONS = ["What?", "Which color is it?"]
SETTINGS = {"num_frames": 3, "max_new_tokens": 8}


def test_several_questions_read_and_encode_the_video_once(checkpoint, clip, monkeypatch):
    alone = [ask(clip, question, checkpoint, **SETTINGS).answer for question in QUESTIONS]
    towers, encode = [], VidLaDAForConditionalGeneration.get_video_features
    monkeypatch.setattr(
        VidLaDAForConditionalGeneration,
        "get_video_features",
        lambda self, *arguments, **options: towers.append(1) or encode(self, *arguments, **options),
    )
    answers = list(ask_each(clip, QUESTIONS, checkpoint, **SETTINGS))
    assert [answer.answer for answer in answers] == alone and len(towers) == 1
    assert [answer.question for answer in answers] == QUESTIONS and not answers[0].share_video


def by_hand(checkpoint, clip, question):
    """Model, processor and inputs."""
    model, processor = (
        part.from_pretrained(checkpoint) for part in (VidLaDAForConditionalGeneration, VidLaDAProcessor)
    )
    content = [{"type": "video", "video": clip}, {"type": "text", "text": question}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={"num_frames": 3},
    )
    return model, processor, inputs


def test_a_shared_video_does_not_see_the_questions(checkpoint, clip):
    expected = []
    for question in QUESTIONS:
        model, processor, inputs = by_hand(checkpoint, clip, question)
        output = model.generate(**inputs, share_video=True, max_new_tokens=8)
        expected.append(processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())
    answers = list(ask_each(clip, QUESTIONS, checkpoint, share_video=True, **SETTINGS))
    assert [answer.answer for answer in answers] == expected and answers[0].share_video


@pytest.mark.parametrize("share_video", [False, True])
def test_choices_come_with_their_likelihoods_best_first(checkpoint, clip, share_video):
    choices = ["a", "bc", "d"]
    model, processor, inputs = by_hand(checkpoint, clip, "What?")
    scores = model.score_choices(
        **inputs, choices=choices, tokenizer=processor.tokenizer, seed=1, share_video=share_video
    )
    answer = ask(clip, "What?", checkpoint, num_frames=3, choices=choices, seed=1, share_video=share_video)
    assert dict(answer.choices) == pytest.approx(dict(zip(choices, scores[0].tolist(), strict=True)), abs=1e-3)
    likelihoods = [likelihood for _, likelihood in answer.choices]
    assert likelihoods == sorted(likelihoods, reverse=True) and answer.answer == answer.choices[0][0]
    assert answer.settings == {"seed": 1} and answer.tokens_per_forward is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"choices": ["a"]}, "At least two choices"),
        ({"choices": ["a", "a"]}, "a repeated one"),
        ({"choices": ["a", "b"], "stream": True}, "leave out `stream`"),
        ({"choices": ["a", "b"], "temperature": 0.5}, "leave out `temperature`"),
        ({"share_video": True, "cfg_scale": 1.0}, "`cfg_scale` .1.0. also runs prompts without their video"),
    ],
)
def test_impossible_wishes_are_found_before_anything_is_read(checkpoint, options, message):
    with pytest.raises(ValueError, match=message):
        ask("missing.mp4", "What?", checkpoint, **options)
