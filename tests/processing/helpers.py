"""A tokenizer and a processor small enough to build in a test, and clips without files."""

from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast
from transformers.models.siglip.image_processing_siglip import SiglipImageProcessor

from vidlada_hf.hub import random_checkpoint
from vidlada_hf.processing.processing_vidlada import VidLaDAProcessor
from vidlada_hf.processing.video_processing_vidlada import VidLaDAVideoProcessor

SIDE = 28  # pixels: with patches of 14 a frame is 2 x 2 patches, pooled to 1 cell and 1 newline


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and the published tokenizer's special tokens: no placeholders, padding on the right."""
    return random_checkpoint.byte_tokenizer(random_checkpoint.SPECIAL_TOKENS[:-2], padding_side="right")


def small_processor(tokenizer: Any = None, side: int = SIDE, **options: Any) -> VidLaDAProcessor:
    """A processor for frames and images of 28 x 28 pixels: two rows of the model's input a frame."""
    size = {"height": side, "width": side}
    return VidLaDAProcessor(
        image_processor=SiglipImageProcessor(size=size),
        tokenizer=byte_tokenizer() if tokenizer is None else tokenizer,
        video_processor=VidLaDAVideoProcessor(size=size),
        **options,
    )


def clip(frames: int, seed: int = 0) -> np.ndarray:
    """A clip of noise: uint8 (frames, 32, 40, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (frames, 32, 40, 3), dtype=np.uint8)


def ask(video: Any, question: str) -> list[dict[str, Any]]:
    """A conversation of one question about a video (None: about nothing)."""
    parts = [] if video is None else [{"type": "video", "video": video}]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]
