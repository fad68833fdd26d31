"""Attention to an example's own keys and to keys that all examples share, of which there is one copy."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from .flash_attention_vidlada import flash_attention, has_flash_attention, join_attention


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
    if attention_mask is None and has_flash_attention(attention, groups[0][0]):
        attended = _attend_twice(attention, groups, shared_key, shared_value)
    else:
        attended = _attend_to_both(attention, groups, shared_key, shared_value, attention_mask)
    return attended.unflatten(0, (len(groups[0][0]), -1)) if len(groups) == 1 else attended[None]


def attend_masked(
    attention: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    shared: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Torch's attention of a few tokens, each of which sees other keys, whatever implementation the layer has.

    Args:
        attention: the layer's `VidLaDAAttention`.
        query, key, value: (examples, heads, tokens, head_dim).
        attention_mask: (examples or 1, 1, queries, keys), bool, True where a query sees a key.
        shared: as for `attend_with_shared`; all see these.

    Returns:
        (examples, queries, heads, head_dim).
    """
    if shared is not None:
        common = (tensor.transpose(0, 1).expand(len(query), -1, -1, -1) for tensor in shared)
        key, value = (torch.cat(parts, dim=2) for parts in zip(common, (key, value), strict=True))
        attention_mask = torch.nn.functional.pad(attention_mask, (len(shared[0]), 0), value=True)
    mask = attention_mask.to(query.device)
    return sdpa_attention_forward(attention, query, key, value, mask, scaling=attention.scaling, is_causal=False)[0]


def _attend_twice(
    attention: Any, groups: Sequence[Any], shared_key: torch.Tensor, shared_value: torch.Tensor
) -> torch.Tensor:
    """(queries of all groups, heads, head_dim), from an attention to the own keys and one to the shared."""
    own = [flash_attention(query, key, value, attention.scaling) for query, key, value in groups]
    out, weight = (torch.cat([each.transpose(1, 2).flatten(0, 1) for each in part]) for part in zip(*own, strict=True))
    queries = torch.cat([query.transpose(1, 2).flatten(0, 1) for query, _, _ in groups]).transpose(0, 1)[None]
    common = flash_attention(queries, shared_key, shared_value, attention.scaling)
    return join_attention(out, weight, *(part[0].transpose(0, 1) for part in common))


def _attend_to_both(
    attention: Any,
    groups: Sequence[Any],
    shared_key: torch.Tensor,
    shared_value: torch.Tensor,
    attention_mask: torch.Tensor | None,
) -> torch.Tensor:
    """The same from one attention, with the shared keys copied before each example's own."""
    parts = []
    for query, key, value in groups:
        examples = (len(query), -1, -1, -1)
        key = torch.cat([shared_key.expand(examples), key], dim=2)
        value = torch.cat([shared_value.expand(examples), value], dim=2)
        mask = _additive_mask(attention_mask, shared_key.shape[2], query)
        parts.append(attention.attend(query, key, value, mask)[0].flatten(0, 1))
    return torch.cat(parts)


def _additive_mask(mask: torch.Tensor | None, shared: int, query: torch.Tensor) -> torch.Tensor | None:
    """(examples, keys) -> (examples, 1, 1, shared + keys), added to scores: what is shared is seen by all."""
    if mask is None:
        return None
    lowest = torch.finfo(query.dtype).min
    added = torch.zeros(mask.shape, dtype=query.dtype, device=mask.device).masked_fill(~mask.bool(), lowest)
    return torch.nn.functional.pad(added, (shared, 0))[:, None, None]


__all__ = ["attend_masked", "attend_with_shared"]
