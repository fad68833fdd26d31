"""A tiny VidLaDA with random weights: every part is there and nothing was learned. Its answers are noise."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, SiglipImageProcessor

from ..modeling.configuration_vidlada import VidLaDAConfig
from ..modeling.modeling_vidlada import VidLaDAForConditionalGeneration
from ..processing.processing_vidlada import VidLaDAProcessor
from ..processing.video_processing_vidlada import VidLaDAVideoProcessor

BOS, EOS, MASK = "<|startoftext|>", "<|endoftext|>", "<|mdm_mask|>"
HEADER, END_HEADER, END_OF_TURN = "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"
SPECIAL_TOKENS = (BOS, EOS, MASK, HEADER, END_HEADER, END_OF_TURN, "<image>", "<video>")
IMAGE_SIZE, PATCH_SIZE = 56, 14


def build_random_checkpoint(out_dir: str | os.PathLike, seed: int = 0) -> Path:
    """Writes a complete checkpoint (about 0.2 MB): weights, configs, byte-level tokenizer, processor.

    Args:
        out_dir: the folder; made if need be.
        seed: of the weights. The same seed gives the same files.

    Returns:
        `out_dir`.
    """
    out_dir = Path(out_dir)
    tokenizer = byte_tokenizer()
    config = tiny_config(tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VidLaDAForConditionalGeneration(config)
    model.save_pretrained(out_dir, save_original_format=False)
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    VidLaDAProcessor(
        image_processor=SiglipImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=VidLaDAVideoProcessor(size=size, max_frames=8),
        patch_size=PATCH_SIZE,
    ).save_pretrained(out_dir)
    return out_dir


def byte_tokenizer(
    special_tokens: Sequence[str] = SPECIAL_TOKENS, padding_side: str = "left"
) -> PreTrainedTokenizerFast:
    """One token a byte, and LLaDA's special tokens behind them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={byte: i for i, byte in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special_tokens))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=EOS, padding_side=padding_side
    )


def tiny_config(tokenizer: PreTrainedTokenizerFast) -> VidLaDAConfig:
    """Two layers of everything. Only readable characters are left to answer with, so that a terminal can show them."""
    ids = tokenizer.get_vocab()
    readable = {ids[chr(code)] for code in range(33, 127)} | {ids["Ġ"], ids[END_OF_TURN]}
    return config_for(
        tokenizer,
        text_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 4096,
            "initializer_range": 0.5,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": IMAGE_SIZE,
            "patch_size": PATCH_SIZE,
        },
        suppress_tokens=sorted(set(ids.values()) - readable),
    )


def config_for(
    tokenizer: PreTrainedTokenizerFast,
    text_config: dict[str, Any],
    vision_config: dict[str, Any],
    suppress_tokens: Sequence[int],
) -> VidLaDAConfig:
    """The configuration of a model that speaks with a tokenizer: its vocabulary and `SPECIAL_TOKENS` put into place.

    Args:
        text_config, vision_config: the sizes.
        suppress_tokens: ids that a masked position never becomes.
    """
    ids = tokenizer.get_vocab()
    special = {
        "vocab_size": len(tokenizer),
        "bos_token_id": ids[BOS],
        "eos_token_id": [ids[EOS], ids[END_OF_TURN]],
        "pad_token_id": ids[EOS],
    }
    return VidLaDAConfig(
        text_config=text_config | special,
        vision_config=vision_config,
        image_token_id=ids["<image>"],
        video_token_id=ids["<video>"],
        mask_token_id=ids[MASK],
        suppress_tokens=suppress_tokens,
    )
