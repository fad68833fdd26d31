"""A question about a video and its answer: what `vidlada ask` does."""

import time
from dataclasses import dataclass
from typing import Any

import torch

from ..hub.locate import find_checkpoint
from ..modeling.generation_config_vidlada import VidLaDAGenerationConfig
from ..modeling.modeling_vidlada import VidLaDAForConditionalGeneration
from ..processing.processing_vidlada import VidLaDAProcessor
from .terminal import make_streamer


@dataclass
class Answer:
    """An answer and how it was made.

    Args:
        question, answer: as text.
        video: path or address.
        frames: how many of its frames the model got.
        model: the checkpoint's folder or id.
        seconds: reading the video and denoising the answer; loading the model is not counted.
        tokens_per_forward: tokens committed in a forward pass, on average.
        settings: the generation config that was used.
    """

    question: str
    answer: str
    video: str
    frames: int
    model: str
    seconds: float
    tokens_per_forward: float
    settings: dict[str, Any]


def ask(
    video: str,
    question: str,
    model: str | None = None,
    num_frames: int | None = None,
    fps: float | None = None,
    allow_urls: bool = False,
    stream: bool = False,
    **settings: Any,
) -> Answer:
    """Asks a question about a video.

    Args:
        video: path of a video file or of a folder of frames, or an address.
        question: the user's text.
        model: a checkpoint's folder or its id on the Hub; None: the embedded one.
        num_frames, fps: how many frames to look at, or how many a second; at most one of them.
        allow_urls: fetch the video if it is an http(s) address.
        stream: show the answer on stdout while it is denoised.
        settings: fields of `VidLaDAGenerationConfig`.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: an impossible setting or a video that cannot be read, found before the weights are loaded.
    """
    name = find_checkpoint(model)
    config = VidLaDAGenerationConfig.from_pretrained(name)
    config.update(**settings)
    config.blocks()  # raises where a division is not exact

    started = time.perf_counter()
    processor = VidLaDAProcessor.from_pretrained(name)
    sampling = {"num_frames": num_frames, "fps": fps}
    part = {"type": "video", "url" if allow_urls else "path": video}
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": [part, {"type": "text", "text": question}]}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={key: value for key, value in sampling.items() if value is not None},
    )
    seconds = time.perf_counter() - started

    network = VidLaDAForConditionalGeneration.from_pretrained(name, dtype="auto")
    network = network.to("cuda" if torch.cuda.is_available() else "cpu").eval()  # type: ignore[arg-type]
    streamer = make_streamer(processor.tokenizer, network.config.mask_token_id) if stream else None
    started = time.perf_counter()
    inputs = inputs.to(network.device, network.dtype)
    output = network.generate(
        **inputs,
        generation_config=config,
        streamer=streamer,
        tokenizer=processor.tokenizer,
        return_dict_in_generate=True,
    )
    seconds += time.perf_counter() - started
    answer_ids = output.sequences[0, inputs["input_ids"].shape[1] :]
    return Answer(
        question=question,
        answer=processor.decode(answer_ids, skip_special_tokens=True).strip(),
        video=video,
        frames=int(inputs["num_frames_per_video"].sum()),
        model=name,
        seconds=round(seconds, 3),
        tokens_per_forward=round(float(output.tokens_per_forward[0]), 3),
        settings=config.to_dict(),
    )


__all__ = ["Answer", "ask"]
