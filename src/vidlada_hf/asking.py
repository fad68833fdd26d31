"""One question about one video, from the names of things to the answer as text: what `vidlada ask` does."""

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .modeling.generation_vidlada import VidLaDAGenerationConfig
from .modeling.modeling_vidlada import VidLaDAForConditionalGeneration
from .modeling.official_checkpoint_vidlada import is_official_config
from .processing.processing_vidlada import VidLaDAProcessor
from .terminal import make_streamer

EMBEDDED_CHECKPOINT = Path(__file__).parent / "checkpoints" / "vidlada-tiny"


@dataclass
class Answer:
    """An answer and how it came about.

    Args:
        question, answer: as text.
        video: where the video came from.
        frames: how many of its frames the model saw.
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
    stream: bool = False,
    **settings: Any,
) -> Answer:
    """Asks a question about a video.

    Args:
        video: path or address of a video file, or a folder of frames.
        question: the user's text.
        model: a checkpoint's folder or its id on the Hub; None: the embedded one.
        num_frames, fps: how many frames to look at, or how many a second; at most one of them.
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
    chosen = {"num_frames": num_frames, "fps": fps}
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "video", "path": video}, {"type": "text", "text": question}]}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={key: value for key, value in chosen.items() if value is not None},
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
        frames=int(inputs["video_num_frames"].sum()),
        model=name,
        seconds=round(seconds, 3),
        tokens_per_forward=round(float(output.tokens_per_forward[0]), 3),
        settings=config.to_dict(),
    )


def embedded_checkpoint() -> Path | None:
    """The checkpoint that comes with the package, if one does."""
    return EMBEDDED_CHECKPOINT if (EMBEDDED_CHECKPOINT / "config.json").is_file() else None


def find_checkpoint(model: str | None) -> str:
    """The folder or id to load; raises where it can be seen that it will not load."""
    if model is None:
        embedded = embedded_checkpoint()
        if embedded is None:
            raise FileNotFoundError(
                "No checkpoint comes with this version of the package: pass a folder or an id on the Hub (`--model`)."
            )
        return str(embedded)
    path = Path(model)
    if not path.is_dir():
        if path.exists() or not re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", model):
            raise FileNotFoundError(f"{model} is no folder: pass a checkpoint's folder or its id on the Hub.")
        return model
    if not (path / "config.json").is_file():
        raise FileNotFoundError(f"{model} holds no config.json: pass the folder of a VidLaDA checkpoint.")
    if is_official_config(json.loads((path / "config.json").read_text(encoding="utf-8"))):
        raise ValueError(f"{model} is an official checkpoint: run `vidlada convert {model} DIR` and pass DIR.")
    return model
