"""Questions about a video and their answers: what `vidlada ask` does."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..hub.loading import load_network, load_settings, resolve_device
from ..hub.locate import find_checkpoint
from ..modeling.arguments_vidlada import check_positions
from ..modeling.configuration_vidlada import VidLaDAConfig
from ..modeling.generation_config_vidlada import VidLaDAGenerationConfig
from ..processing.addresses_vidlada import allow_addresses
from ..processing.begun_answers_vidlada import refuse_long_text
from ..processing.choices_vidlada import check_choices, rank_choices
from ..processing.processing_vidlada import VidLaDAProcessor
from ..processing.video_once_vidlada import VISUAL_INPUTS, VideoOnce
from .terminal import make_streamer

SCORING = ("seed", "cache_strategy", "cache_config")  # settings that scores of choices depend on


@dataclass
class Answer:
    """An answer and how it was made.

    Args:
        question, answer: as text; of choices the most likely one.
        video: path or address.
        frames: how many of its frames the model got.
        model: the checkpoint's folder or id.
        seconds: reading the video, as far as nobody asked about it before, and answering; loading the model is not
            counted.
        tokens_per_forward: tokens committed in a forward pass, on average; None for choices.
        settings: the generation config that was used; for choices what they were scored with.
        choices: with their log-likelihoods in nats, the best first; empty where the answer was generated.
        share_video: whether the video was encoded without seeing the question.
    """

    question: str
    answer: str
    video: str
    frames: int
    model: str
    seconds: float
    tokens_per_forward: float | None
    settings: dict[str, Any]
    choices: list[tuple[str, float]] = field(default_factory=list)
    share_video: bool = False


def ask(video: str, question: str, model: str | None = None, **options: Any) -> Answer:
    """Asks one question about a video: see `ask_each`."""
    (answer,) = ask_each(video, [question], model, **options)
    return answer


def ask_each(
    video: str,
    questions: Sequence[str],
    model: str | None = None,
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    allow_urls: bool = False,
    stream: bool = False,
    share_video: bool = False,
    choices: Sequence[str] | None = None,
    device: str | None = None,
    dtype: str = "auto",
    **settings: Any,
) -> Iterator[Answer]:
    """Asks questions about a video, which is read and encoded once; yields each answer as it is there.

    Args:
        video: path of a video file or of a folder of frames, or an address.
        questions: the user's texts.
        model: a checkpoint's folder or its id on the Hub; None: the embedded one.
        num_frames, fps: how many frames to look at, or how many a second; at most one of them.
        allow_urls: fetch the video if it is an http(s) address.
        stream: show each answer on stdout while it is denoised.
        share_video: keep the video's keys and values, for which it does not see the questions; else its features.
        choices: score these answers, and generate none.
        device, dtype: of the weights, see `load_network`.
        settings: fields of `VidLaDAGenerationConfig`; for choices only `seed`, of the masks, and the cache strategy.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: an impossible setting or a video that cannot be read, found before the weights are loaded.
    """
    name = find_checkpoint(model)
    config, device = check_wishes(name, settings, stream, share_video, choices), resolve_device(device)

    started = time.perf_counter()
    processor, source = (
        VidLaDAProcessor.from_pretrained(name),
        VideoOnce(allow_addresses(video) if allow_urls else video),
    )
    sampling: dict[str, Any] = {
        key: value for key, value in (("num_frames", num_frames), ("fps", fps)) if value is not None
    }
    positions = VidLaDAConfig.from_pretrained(name).text_config.max_position_embeddings
    chats = [ask_about(source, question) for question in questions]
    for chat in chats:
        refuse_long_text(processor, chat, positions, add_generation_prompt=True)
    prepared = [prepare(processor, chat, sampling) for chat in chats]
    for inputs, _ in prepared:
        check_positions(inputs["attention_mask"], config.max_new_tokens if choices is None else 0, positions)
    reading = time.perf_counter() - started

    network = load_network(name, device, dtype)
    for question, (inputs, visual) in zip(questions, prepared, strict=True):
        if stream and len(questions) > 1:
            print(question)
        started = time.perf_counter()
        inputs = {key: value.to(network.device) for key, value in inputs.items()}
        inputs = source.encode(network, inputs, visual, share_video)
        found = (
            generate(network, processor, inputs, config, stream)
            if choices is None
            else score(network, processor, inputs, choices, settings)
        )
        seconds, reading = reading + time.perf_counter() - started, 0.0
        frames = int(visual["num_frames_per_video"].sum())
        about: dict[str, Any] = {"video": video, "frames": frames, "model": name, "share_video": share_video}
        yield Answer(question=question, seconds=round(seconds, 3), **about, **found)


def check_wishes(
    name: str, settings: dict[str, Any], stream: bool, share_video: bool, choices: Sequence[str] | None
) -> VidLaDAGenerationConfig:
    """The checkpoint's generation config with the settings in it.

    Raises:
        ValueError: settings or choices that are impossible, by themselves or together.
    """
    config = load_settings(name, settings)
    if share_video and config.cfg_scale > 0:
        raise ValueError(f"`cfg_scale` ({config.cfg_scale}) also runs prompts without their video: do not share it.")
    if choices is not None:
        check_choices(choices)
        given = [*(["stream"] if stream else []), *(name for name in settings if name not in SCORING)]
        if given:
            raise ValueError(f"Choices are scored, and nothing is generated: leave out `{given[0]}`.")
    return config


def ask_about(video: VideoOnce, question: str) -> list[dict[str, Any]]:
    """The conversation that asks a question."""
    return [{"role": "user", "content": [{"type": "video", "video": video}, {"type": "text", "text": question}]}]


def prepare(
    processor: VidLaDAProcessor, chat: list[dict[str, Any]], sampling: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The inputs of a question about a video: ids and mask, and what is visual."""
    inputs = processor.apply_chat_template(
        chat,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs=sampling,
    )
    visual = {key: inputs.pop(key) for key in VISUAL_INPUTS if key in inputs}
    return dict(inputs), visual


def generate(
    network: Any, processor: VidLaDAProcessor, inputs: dict[str, Any], config: VidLaDAGenerationConfig, stream: bool
) -> dict[str, Any]:
    """What an `Answer` says of an answer that is generated."""
    output = network.generate(
        **inputs,
        generation_config=config,
        streamer=make_streamer(processor.tokenizer, network.config.mask_token_id) if stream else None,
        tokenizer=processor.tokenizer,
        return_dict_in_generate=True,
    )
    answer_ids = output.sequences[0, inputs["input_ids"].shape[1] :]
    return {
        "answer": processor.decode(answer_ids, skip_special_tokens=True).strip(),
        "tokens_per_forward": round(float(output.tokens_per_forward[0]), 3),
        "settings": config.to_dict(),
    }


def score(
    network: Any, processor: VidLaDAProcessor, inputs: dict[str, Any], choices: Sequence[str], settings: dict[str, Any]
) -> dict[str, Any]:
    """What an `Answer` says of choices."""
    scores = network.score_choices(**inputs, choices=choices, tokenizer=processor.tokenizer, **settings)
    ranked = [(choice, round(value, 4)) for choice, value in rank_choices(choices, scores[0].tolist())]
    return {"answer": ranked[0][0].strip(), "tokens_per_forward": None, "settings": settings, "choices": ranked}


__all__ = ["Answer", "ask", "ask_each"]
