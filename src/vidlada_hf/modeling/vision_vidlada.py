"""From frames to visual tokens: SigLIP2 tower, projector, pooling, newlines, and their place in the prompt.

Facts and figures: arXiv 2601.17868 and the official code (repository ziHoHe/VidLaDA).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import SiglipVisionConfig, SiglipVisionModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import torch_compilable_check
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_vidlada import VidLaDAConfig
from .padded_visual_vidlada import explain_cut


class VidLaDAVisionTower(SiglipVisionModel):
    """SigLIP2 whose output is the last layer's, before the post layer norm (the official model never applies it)."""

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__(config)
        # In every checkpoint, and never used: without this it would count as a parameter without a gradient.
        self.post_layernorm.requires_grad_(False)

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutput:
        """Pixels (frames, 3, side, side) -> last_hidden_state (frames, patches, hidden)."""
        return self.encoder(inputs_embeds=self.embeddings(pixel_values), **kwargs)


class VidLaDAProjector(nn.Module):
    """Linear, activation, linear: from the tower's width to the text model's, before pooling."""

    def __init__(self, config: VidLaDAConfig) -> None:
        super().__init__()
        hidden_size = config.text_config.hidden_size
        self.linear_1 = nn.Linear(config.vision_config.hidden_size, hidden_size)
        self.act = ACT2FN[config.projector_hidden_act]
        self.linear_2 = nn.Linear(hidden_size, hidden_size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(frames, patches, tower width) -> (frames, patches, hidden)."""
        return self.linear_2(self.act(self.linear_1(features)))


def pool_patches(features: torch.Tensor, stride: int, mode: str) -> torch.Tensor:
    """Pools the square grid of patches of each frame.

    Args:
        features: (frames, side * side, hidden).
        stride: patches along the side of a pooled cell.
        mode: "bilinear" resizes to ceil(side / stride) without antialias and with `align_corners=False`; "average"
            and "max" pool to floor(side / stride).

    Returns:
        (frames, pooled side, pooled side, hidden).
    """
    side = math.isqrt(features.shape[1])
    grid = features.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    if mode == "bilinear":
        pooled = nn.functional.interpolate(grid, size=[math.ceil(side / stride)] * 2, mode="bilinear")
    elif mode == "average":
        pooled = nn.functional.avg_pool2d(grid, stride)
    else:
        pooled = nn.functional.max_pool2d(grid, stride)
    return pooled.permute(0, 2, 3, 1)


def add_newlines(frames: torch.Tensor, newline: torch.Tensor, position: str) -> torch.Tensor:
    """Lays the frames of one video out as tokens, with the newline vector where `position` says.

    Args:
        frames: (frames, side, side, hidden).
        newline: (hidden,).
        position: "grid" after each row of a frame, "frame" after each frame, "one_token" after the video, "no_token".

    Returns:
        (tokens, hidden).
    """
    count, side, _, hidden = frames.shape
    if position == "grid":
        return torch.cat([frames, newline.expand(count, side, 1, hidden)], dim=2).flatten(0, 2)
    if position == "frame":
        return torch.cat([frames.flatten(1, 2), newline.expand(count, 1, hidden)], dim=1).flatten(0, 1)
    if position == "one_token":
        return torch.cat([frames.flatten(0, 2), newline[None]])
    return frames.flatten(0, 2)


class VidLaDANewline(nn.Module):
    """The learned vector that ends a row, a frame or a video. A module, so that offloading fetches it when used."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(hidden_size))

    def forward(self, frames: torch.Tensor, position: str) -> torch.Tensor:
        return add_newlines(frames, self.weight.to(frames), position)


def frame_counts(given: torch.Tensor | Sequence[int] | None, frames: int, is_replica: bool = False) -> list[int]:
    """How many of so many frames belong to each video.

    Args:
        given: (videos,); None: there is one.
        is_replica: see `explain_cut`.

    Raises:
        ValueError: they do not add up to the frames, or a video has none.
    """
    counts = torch.as_tensor([frames] if given is None else given, dtype=torch.long)
    torch_compilable_check(
        (counts.sum() == frames) & (counts > 0).all() & (len(counts) > 0),
        lambda: (
            f"`num_frames_per_video` is {counts.tolist()} (sum {int(counts.sum())}) but `pixel_values_videos` holds "
            f"{frames} frames; each video needs at least one, and all must add up. "
            f"({explain_cut(frames, len(counts), is_replica)})"
        ),
    )
    return [frames] if len(counts) == 1 else counts.tolist()


def scatter_features(
    embeddings: torch.Tensor,
    placeholders: torch.Tensor,
    features: torch.Tensor | Sequence[torch.Tensor] | None,
    what: str,
) -> torch.Tensor:
    """Puts features, in order, at the placeholders.

    Args:
        embeddings: (batch, tokens, hidden).
        placeholders: (batch, tokens), bool.
        features: (tokens, hidden), (videos, tokens, hidden) or a list of (tokens, hidden); None if there are none.
        what: "video" or "image", for the message.

    Raises:
        ValueError: the number of features is not the number of placeholders.
    """
    if features is not None:
        features = features if isinstance(features, torch.Tensor) else torch.cat([*features])
        features = features.flatten(0, -2)
    given, wanted = 0 if features is None else features.shape[0], placeholders.sum()

    def message() -> str:
        remedy = (
            f"pass the pixels of the {what} that the processor returned along with the ids"
            if given == 0
            else "build `input_ids` with the processor that belongs to this checkpoint, from the same frames"
        )
        return f"`input_ids` holds {wanted} {what} placeholders, but there are {given} {what} features: {remedy}."

    torch_compilable_check(wanted == given, message)
    if features is None:
        return embeddings
    return embeddings.masked_scatter(placeholders[..., None], features.to(embeddings))


__all__ = [
    "VidLaDANewline",
    "VidLaDAProjector",
    "VidLaDAVisionTower",
    "frame_counts",
    "pool_patches",
    "scatter_features",
]
