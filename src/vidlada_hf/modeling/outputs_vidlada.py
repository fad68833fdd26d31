"""What the models return, and visual features in any form in which they are given back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling, ModelOutput


class VidLaDAMultimodalOutput(ModelOutput):
    """An output that holds those of the tower; as a tuple, these are tuples too."""

    def to_tuple(self) -> tuple[Any, ...]:
        """All that is not None."""
        return tuple(part.to_tuple() if isinstance(part, ModelOutput) else part for part in super().to_tuple())


@dataclass
class VidLaDAModelOutput(VidLaDAMultimodalOutput):
    """What `VidLaDAModel` returns.

    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(batch, tokens, hidden)`): after the final norm.
        hidden_states, attentions: one a layer, where asked for (`hidden_states[0]` is the embeddings).
        image_outputs, video_outputs: what `get_image_features` and `get_video_features` returned; None where there were
            no images or videos.
    """

    last_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    image_outputs: BaseModelOutputWithPooling | None = None
    video_outputs: BaseModelOutputWithPooling | None = None


@dataclass
class VidLaDAOutput(VidLaDAMultimodalOutput):
    """What `VidLaDAForConditionalGeneration` returns without `labels` (with them a `VidLaDALossOutput`).

    Args:
        logits (`torch.FloatTensor` of shape `(batch, tokens kept, vocabulary)`): at the positions of
            `logits_to_keep`. Position i predicts its own token, not the next one.
        hidden_states, attentions: one a layer, where asked for.
        image_outputs, video_outputs: what `get_image_features` and `get_video_features` returned; None where there were
            no images or videos.
    """

    loss: None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    image_outputs: BaseModelOutputWithPooling | None = None
    video_outputs: BaseModelOutputWithPooling | None = None


def join_outputs(parts: Sequence[BaseModelOutputWithPooling]) -> BaseModelOutputWithPooling:
    """Outputs of the tower for some frames each, as one for all of them."""
    if len(parts) == 1:
        return parts[0]
    joined: dict[str, Any] = {}
    for name, value in parts[0].items():
        if isinstance(value, torch.Tensor):
            joined[name] = torch.cat([part[name] for part in parts])
        else:  # one a layer; None where a layer was not asked for, or its attention has no weights to give
            layers = zip(*(part[name] for part in parts), strict=True)
            joined[name] = tuple(None if layer[0] is None else torch.cat(layer) for layer in layers)
    return BaseModelOutputWithPooling(**joined)


def pooled_features(given: Any) -> torch.Tensor | Sequence[torch.Tensor] | None:
    """The features of each video or image.

    Args:
        given: what `get_video_features` returned, also with `return_dict=False`; or such features themselves, a tensor
            (tokens, hidden) each, or all of them in one tensor; or None.
    """
    if isinstance(given, ModelOutput):
        return given["pooler_output"]
    if isinstance(given, tuple) and len(given) > 1 and isinstance(given[1], list):
        return given[1]
    return given


__all__ = ["VidLaDAModelOutput", "VidLaDAMultimodalOutput", "VidLaDAOutput", "join_outputs", "pooled_features"]
