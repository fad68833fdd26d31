"""A model of any size with random weights, and a prompt for it: what a step costs does not depend on what it says."""

from typing import Any

import torch

from ..modeling.configuration_vidlada import VidLaDAConfig
from ..modeling.generation_vidlada import VidLaDAGenerationConfig
from ..modeling.modeling_vidlada import VidLaDAForConditionalGeneration
from .decoding import DecodingRunner, Encoded

TEXT_ROWS = 40  # of a prompt: 20 before the video, 20 behind it
PATCH = 14

# Fields of `VidLaDATextConfig`: of the set-up for a CPU, and of one that takes no time.
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
    text: dict[str, Any], device: torch.device, dtype: torch.dtype, grid: int = 27, seed: int = 0
) -> VidLaDAForConditionalGeneration:
    """A model with a vision tower that is there for form's sake.

    Args:
        text: fields of `VidLaDATextConfig`.
        grid: patches along the side of a frame; 27 gives 210 rows a frame.
        seed: of the weights.
    """
    vocabulary = text.get("vocab_size", 126464)
    tower = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = VidLaDAConfig(
        text_config={"eos_token_id": None, "pad_token_id": None, "bos_token_id": None} | text,
        vision_config=tower | {"image_size": grid * PATCH, "patch_size": PATCH},
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


def random_question(model: VidLaDAForConditionalGeneration, frames: int, seed: int = 0) -> Encoded:
    """A prompt of 40 rows of text around a video of so many frames, which the tower is taken to have seen."""
    generator = torch.Generator().manual_seed(seed)
    rows, vocabulary = frames * model.model.tokens_per_frame, model.config.text_config.vocab_size
    words = torch.randint(0, vocabulary - 1, (TEXT_ROWS,), generator=generator)
    half = TEXT_ROWS // 2
    ids = torch.cat([words[:half], torch.full((rows,), model.config.video_token_id), words[half:]])[None]
    features = torch.randn(rows, model.config.text_config.hidden_size, generator=generator)
    counts = torch.tensor([frames], device=model.device)
    inputs = {"input_ids": ids.to(model.device), "video_num_frames": counts}
    return Encoded(inputs, [features.to(model.device, model.dtype)])


def random_denoiser(model: VidLaDAForConditionalGeneration, frames: int, canvas: int, block: int) -> DecodingRunner:
    """One token a step, over the whole canvas."""
    settings = {"max_new_tokens": canvas, "block_length": block, "max_denoising_steps": canvas}
    return DecodingRunner(model, None, frames, "canvas", settings)


__all__ = ["SMALL_TEXT", "TINY_TEXT", "build_random_model", "random_denoiser", "random_question"]
