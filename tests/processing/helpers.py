"""A tokenizer and a processor small enough to build in a test, and clips without files."""

from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.models.siglip.image_processing_siglip import SiglipImageProcessor

from vidlada_hf.processing.processing_vidlada import VidLaDAProcessor
from vidlada_hf.processing.video_processing_vidlada import VidLaDAVideoProcessor

SIDE = 28  # pixels: with patches of 14 a frame is 2 x 2 patches, pooled to 1 cell and 1 newline
SPECIAL = [
    "<|startoftext|>",
    "<|endoftext|>",
    "<|mdm_mask|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
]


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and the special tokens of the published tokenizer (start token not added by itself)."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: at for at, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        padding_side="right",
    )


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
