"""The one builder of tiny models: a VidLaDA of random weights, a processor that fits it, and inputs.

`tiny_model` takes token ids of a vocabulary of 64. `build_tiny` speaks bytes and has a processor; a recipe starts from
it by the name "tests.tiny_models:build_tiny". `write_tiny_checkpoint` writes what `build_tiny` gives.
"""

import os
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.models.siglip.image_processing_siglip import SiglipImageProcessor

from vidlada_hf.modeling.configuration_vidlada import VidLaDAConfig
from vidlada_hf.modeling.modeling_vidlada import VidLaDAForConditionalGeneration
from vidlada_hf.modeling.objective_vidlada import IGNORED
from vidlada_hf.processing.processing_vidlada import VidLaDAProcessor
from vidlada_hf.processing.video_processing_vidlada import VidLaDAVideoProcessor

MASK, PAD, EOT, IMAGE, VIDEO = 1, 0, 2, 60, 61  # ids of `tiny_model`
IMAGE_SIZE, PATCH_SIZE = 56, 14  # 4 x 4 patches, pooled to 2 x 2: 6 tokens a frame with a newline a row
SPECIAL_TOKENS = (
    "<|startoftext|>",
    "<|endoftext|>",
    "<|mdm_mask|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)


def tiny_config(**fields) -> VidLaDAConfig:
    """A 4-layer model of width 32 over 64 tokens.

    Args:
        fields: of `VidLaDAConfig`; `text_config` changes only the fields it names.
    """
    text = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "pad_token_id": PAD,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    vision = {
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH_SIZE,
    }
    text |= fields.pop("text_config", {})
    ids = {"image_token_id": IMAGE, "video_token_id": VIDEO, "mask_token_id": MASK, "suppress_tokens": [PAD]}
    return VidLaDAConfig(text_config=text, vision_config=vision, **(ids | fields))


def tiny_model(seed: int = 0, **fields) -> VidLaDAForConditionalGeneration:
    """The model with weights large enough that its answers depend on everything it sees."""
    torch.manual_seed(seed)
    model = VidLaDAForConditionalGeneration(tiny_config(**fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
        model.get_input_embeddings().weight.normal_()
        for layer in model.model.language_model.layers:  # sharp attention, which outweighs the masks' own embedding
            for name, scale in (("q_proj", 3), ("k_proj", 3), ("v_proj", 2), ("o_proj", 2)):
                getattr(layer.self_attn, name).weight.mul_(scale)
        model.lm_head.weight.mul_(4)
    return model


def byte_tokenizer(placeholders: bool = True, padding_side: str = "left") -> PreTrainedTokenizerFast:
    """One token a byte, and LLaDA's special tokens behind them.

    Args:
        placeholders: has "<image>" and "<video>" too, as a converted tokenizer has and the published one does not.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={byte: i for i, byte in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([*SPECIAL_TOKENS, *(("<image>", "<video>") if placeholders else ())])
    bos, eos = SPECIAL_TOKENS[:2]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, pad_token=eos, padding_side=padding_side
    )


def tiny_processor(tokenizer: Any = None, image_size: int = IMAGE_SIZE, **options: Any) -> VidLaDAProcessor:
    """A processor for square frames and images of `image_size` pixels, at most 8 frames a video.

    Args:
        tokenizer: `byte_tokenizer` by default.
        options: of `VidLaDAProcessor`.
    """
    size = {"height": image_size, "width": image_size}
    return VidLaDAProcessor(
        image_processor=SiglipImageProcessor(size=size),
        tokenizer=byte_tokenizer() if tokenizer is None else tokenizer,
        video_processor=VidLaDAVideoProcessor(size=size, max_frames=8),
        **({"patch_size": PATCH_SIZE} | options),
    )


def build_tiny(seed: int = 0, **fields: Any) -> tuple[VidLaDAForConditionalGeneration, VidLaDAProcessor]:
    """`tiny_model` with the vocabulary of `byte_tokenizer`, and its processor.

    It answers with readable characters only, so that a terminal can show its noise.

    Args:
        seed: of the weights. The same seed gives the same model.
        fields: of `VidLaDAConfig`.
    """
    processor = tiny_processor()
    ids = processor.tokenizer.get_vocab()
    eos, eot = ids["<|endoftext|>"], ids["<|eot_id|>"]
    readable = {ids[chr(code)] for code in range(33, 127)} | {ids["Ġ"], eot}
    text = {
        "vocab_size": len(ids),
        "bos_token_id": ids["<|startoftext|>"],
        "eos_token_id": [eos, eot],
        "pad_token_id": eos,
    }
    special: dict[str, Any] = {
        "image_token_id": ids["<image>"],
        "video_token_id": ids["<video>"],
        "mask_token_id": ids["<|mdm_mask|>"],
        "suppress_tokens": sorted(set(ids.values()) - readable),
        "text_config": text | fields.pop("text_config", {}),
    }
    with torch.random.fork_rng(devices=[]):
        return tiny_model(seed, **(special | fields)), processor


def write_tiny_checkpoint(out_dir: str | os.PathLike, seed: int = 0) -> Path:
    """Writes what `build_tiny` gives (about 0.2 MB) to a folder, which is made if need be, and returns its path."""
    for part in build_tiny(seed):
        part.save_pretrained(out_dir)
    return Path(out_dir)


def example(
    model: VidLaDAForConditionalGeneration, frames: int, before: int = 3, after: int = 4, seed: int = 1
) -> dict:
    """Inputs of one example: text, a video of `frames` frames (or none), text."""
    generator = torch.Generator().manual_seed(seed)
    visual = frames * model.model.tokens_per_frame + (frames > 0 and model.config.newline_position == "one_token")
    words = torch.randint(3, 60, (before + after,), generator=generator)
    inputs = {"input_ids": torch.cat([words[:before], torch.full((visual,), VIDEO), words[before:]])[None]}
    if frames:
        inputs["pixel_values_videos"] = torch.randn(frames, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
        inputs["num_frames_per_video"] = torch.tensor([frames])
    return inputs


def batch(*examples: dict) -> dict:
    """Examples of different lengths, padded on the left."""
    longest = max(e["input_ids"].shape[1] for e in examples)
    ids = torch.full((len(examples), longest), PAD)
    mask = torch.zeros_like(ids)
    for i, e in enumerate(examples):
        length = e["input_ids"].shape[1]
        ids[i, longest - length :] = e["input_ids"][0]
        mask[i, longest - length :] = 1
    inputs = {"input_ids": ids, "attention_mask": mask}
    for name in ("pixel_values_videos", "num_frames_per_video"):
        if tensors := [e[name] for e in examples if name in e]:
            inputs[name] = torch.cat(tensors)
    return inputs


def collate(examples: list[dict]) -> dict:
    """A batch of examples with labels (1, tokens), padded on the left: a collator of `Trainer`."""
    inputs = batch(*examples)
    labels = torch.full_like(inputs["input_ids"], IGNORED)
    for row, one in zip(labels, examples, strict=True):
        row[-one["labels"].shape[1] :] = one["labels"][0]
    return inputs | {"labels": labels}
