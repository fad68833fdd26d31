"""A model of any size with random weights, and a prompt for it: what a step costs does not depend on what it says."""

from typing import Any

import torch

from ..modeling.configuration_vidlada import VidLaDAConfig
from ..modeling.generation_config_vidlada import VidLaDAGenerationConfig
from ..modeling.modeling_vidlada import VidLaDAForConditionalGeneration
from .decoding import DecodingRunner, EncodedBatch

TEXT_TOKENS = 40  # of a prompt: 20 before the video, 20 behind it
PATCH_SIZE = 14

# Fields of `VidLaDATextConfig`: a size that a CPU can measure, and one that takes no time.
SMALL_TEXT = {
    "vocab_size": 1024,
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
}
TINY_TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}


def build_random_model(
    text: dict[str, Any],
    device: torch.device,
    dtype: torch.dtype,
    grid: int = 27,
    seed: int = 0,
    tower: dict[str, Any] | None = None,
) -> VidLaDAForConditionalGeneration:
    """A model of any size.

    Args:
        text: fields of `VidLaDATextConfig`.
        grid: patches along the side of a frame; 27 gives 210 tokens a frame.
        seed: of the weights.
        tower: fields of the vision tower's config, `{}` for SigLIP2 so400m's. By default a stub: videos come as
            features (`encode_random_question`).
    """
    vocabulary = text.get("vocab_size", 126464)
    if tower is None:
        tower = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = VidLaDAConfig(
        text_config={"eos_token_id": None, "pad_token_id": None, "bos_token_id": None} | text,
        vision_config={"image_size": grid * PATCH_SIZE, "patch_size": PATCH_SIZE} | tower,
        mask_token_id=vocabulary - 1,
        image_token_id=vocabulary,
        video_token_id=vocabulary + 1,
        suppress_tokens=[vocabulary - 1],
    )
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.device(device):
        torch.manual_seed(seed)
        model = VidLaDAForConditionalGeneration._from_config(config, dtype=dtype)
    model.generation_config = VidLaDAGenerationConfig.from_model_config(config)
    return model.eval()


def encode_random_question(model: VidLaDAForConditionalGeneration, frames: int, seed: int = 0) -> EncodedBatch:
    """A prompt of 40 random text tokens around the random features of a video of so many frames."""
    generator = torch.Generator().manual_seed(seed)
    visual_tokens, vocabulary = frames * model.model.tokens_per_frame, model.config.text_config.vocab_size
    words = torch.randint(0, vocabulary - 1, (TEXT_TOKENS,), generator=generator)
    half, video = TEXT_TOKENS // 2, torch.full((visual_tokens,), model.config.video_token_id)
    ids = torch.cat([words[:half], video, words[half:]])[None]
    features = torch.randn(visual_tokens, model.config.text_config.hidden_size, generator=generator)
    inputs = {"input_ids": ids.to(model.device), "num_frames_per_video": torch.tensor([frames], device=model.device)}
    return EncodedBatch(inputs, [features.to(model.device, model.dtype)])


def full_canvas_runner(
    model: VidLaDAForConditionalGeneration, frames: int, max_new_tokens: int, block_length: int
) -> DecodingRunner:
    """A runner that denoises the whole canvas, one token a step."""
    settings = {
        "max_new_tokens": max_new_tokens,
        "block_length": block_length,
        "max_denoising_steps": max_new_tokens,
    }
    return DecodingRunner(model, None, frames, "canvas", settings)


__all__ = ["SMALL_TEXT", "TINY_TEXT", "build_random_model", "encode_random_question", "full_canvas_runner"]
