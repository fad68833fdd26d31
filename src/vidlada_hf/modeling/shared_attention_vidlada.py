"""Attention to an example's own keys and to keys that all examples share, of which there is one copy."""

from collections.abc import Sequence
from typing import Any

import torch

from .flash_attention_vidlada import flash_attention, has_flash_attention


def attend_with_shared(
    attention: Any,
    groups: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
    shared: tuple[torch.Tensor, torch.Tensor],
    attention_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """One softmax over both. Where a kernel tells how much weight it gave, the shared keys are read once for all
    examples; else they stand before each example's own.

    Args:
        attention: the layer's `VidLaDAAttention`.
        groups: query, key and value, (examples, heads, tokens, head_dim) each, of examples that are alike.
        shared: keys and values, (tokens, key-value heads, head_dim).
        attention_mask: (examples, keys), bool, False where an own key is padding; only with one group.

    Returns:
        (examples, queries, heads, head_dim) of one group; of several (1, all their queries, heads, head_dim).
    """
    shared_key, shared_value = (tensor.transpose(0, 1)[None] for tensor in shared)
    if attention_mask is not None or not has_flash_attention(attention, groups[0][0]):
        parts = []
        for query, key, value in groups:
            examples = (len(query), -1, -1, -1)
            key = torch.cat([shared_key.expand(examples), key], dim=2)
            value = torch.cat([shared_value.expand(examples), value], dim=2)
            mask = _additive_mask(attention_mask, shared_key.shape[2], query)
            parts.append(attention.attend(query, key, value, mask)[0])
    else:
        parts, weights = [], []
        for group in groups:
            out, weight = flash_attention(*group, attention.scaling)
            parts.append(out.transpose(1, 2))
            weights.append(weight.transpose(1, 2))
        queries = torch.cat([query.transpose(1, 2).flatten(0, 1) for query, _, _ in groups])
        common, common_weight = flash_attention(
            queries.transpose(0, 1)[None], shared_key, shared_value, attention.scaling
        )
        own, own_weight = (torch.cat([part.flatten(0, 1) for part in each]) for each in (parts, weights))
        share = (own_weight - common_weight[0].transpose(0, 1)).sigmoid().to(own.dtype)
        joined = torch.lerp(common[0].transpose(0, 1), own, share[..., None])
        return joined.view(parts[0].shape) if len(parts) == 1 else joined[None]
    return parts[0] if len(parts) == 1 else torch.cat([part.flatten(0, 1) for part in parts])[None]


def _additive_mask(mask: torch.Tensor | None, shared: int, query: torch.Tensor) -> torch.Tensor | None:
    """(examples, keys) -> (examples, 1, 1, shared + keys), added to scores: what is shared is seen by all."""
    if mask is None:
        return None
    lowest = torch.finfo(query.dtype).min
    added = torch.zeros(mask.shape, dtype=query.dtype, device=mask.device).masked_fill(~mask.bool(), lowest)
    return torch.nn.functional.pad(added, (shared, 0))[:, None, None]


__all__ = ["attend_with_shared"]
