"""A checkpoint that answers chats, as lmms-eval's model drives it."""

from typing import Any

import pytest
import torch

from tests.clips import encode
from tests.tiny_models import build_tiny
from vidlada_hf.evaluation.lmms.answering import Answerer
from vidlada_hf.evaluation.lmms.batches import Prompt, plan_batches
from vidlada_hf.evaluation.lmms.model_args import ModelArgs

QUESTIONS = ("Who?", "What happens then?", "Where is it?")
SETTINGS = {"max_new_tokens": 4}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    for part in build_tiny():
        part.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("clips")
    return [str(encode(folder / f"{frames}.mp4", frames=frames, fps=12)) for frames in (24, 36)]


def answerer(checkpoint: str, **args: Any) -> Answerer:
    return Answerer(ModelArgs.parse({"pretrained": checkpoint, "num_frames": 3, **args}), torch.device("cpu"))


def ask(place: int, video: str, question: str, **settings: Any) -> Prompt:
    content = [{"type": "video", "video": video}, {"type": "text", "text": question}]
    return Prompt(place, [{"role": "user", "content": content}], SETTINGS | settings, video, str(place))


def answers(model: Answerer, prompts: list[Prompt], size: int) -> list[str]:
    batches = plan_batches(prompts, size, model.args.share_video)
    texts = {}
    for batch, found in zip(batches, model.generate(batches, size), strict=True):
        texts |= {prompt.place: text for prompt, text in zip(batch.prompts, found, strict=True)}
    return [texts[prompt.place] for prompt in prompts]


def test_company_and_order_change_no_answer(checkpoint: str, clips: list[str]) -> None:
    model = answerer(checkpoint)
    prompts = [ask(0, clips[0], QUESTIONS[0]), ask(1, clips[1], QUESTIONS[1])]
    prompts += [ask(2 + i, clips[0], question) for i, question in enumerate(QUESTIONS[1:])]
    prompts.append(ask(4, clips[1], QUESTIONS[0], max_new_tokens=6))
    alone = [answers(model, [prompt], 1)[0] for prompt in prompts]
    assert len(set(alone)) > 2 and answers(model, prompts, 1) == alone and answers(model, prompts, 3) == alone


def test_a_shared_video_is_read_and_encoded_once(
    checkpoint: str, clips: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = answerer(checkpoint)
    read, encoded = [], []
    tower = model.network.get_video_features
    monkeypatch.setattr(
        model.network, "get_video_features", lambda *args, **kwargs: encoded.append(1) or tower(*args, **kwargs)
    )
    from vidlada_hf.processing import video_processing_vidlada as module

    opened = module.read_video
    monkeypatch.setattr(module, "read_video", lambda *args, **kwargs: read.append(1) or opened(*args, **kwargs))
    assert all(answers(model, [ask(i, clips[0], question) for i, question in enumerate(QUESTIONS)], 1))
    assert (len(read), len(encoded)) == (1, 1)


def test_keys_and_values_are_shared_only_when_asked_for(checkpoint: str, clips: list[str]) -> None:
    prompts = [ask(i, clips[0], question) for i, question in enumerate(QUESTIONS)]
    shared = answerer(checkpoint, share_video=True)
    together = answers(shared, prompts, 2)
    assert together == [answers(shared, [prompt], 1)[0] for prompt in prompts]
    assert together != answers(answerer(checkpoint), prompts, 2)


def test_choices_get_the_scores_of_the_model(checkpoint: str, clips: list[str]) -> None:
    model = answerer(checkpoint)
    (batch,) = plan_batches([ask(0, clips[0], QUESTIONS[0])], 1)
    choices = ["a", "b", "no"]
    scores, greedy = model.score(batch, choices)
    inputs = model.processor.apply_chat_template(
        batch.prompts[0].messages,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={"num_frames": 3},
    )
    expected = model.network.score_choices(**inputs, choices=choices, tokenizer=model.processor.tokenizer)
    assert torch.allclose(torch.tensor(scores).double(), expected[0].double(), atol=1e-5) and not all(greedy)
    (text,) = answers(model, [ask(0, clips[0], QUESTIONS[0], max_new_tokens=2, block_length=2)], 1)
    if len(text) == 2:  # two bytes: the first is what would be generated on a canvas of two
        assert model.score(batch, [text[0]])[1] == [True]
