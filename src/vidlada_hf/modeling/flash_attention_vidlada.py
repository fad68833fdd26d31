"""Flash attention called by its own name: where torch would pick a slower kernel, and where its weights are needed.

`scaled_dot_product_attention` chooses a kernel by itself, and keeps to itself how much weight the softmax gave. The
operators behind it tell: with the logarithm of the sum that it divided by, two attentions of the same queries to
different keys can be joined.
"""

from typing import Any

import torch

# Up to so many queries flash attention, which splits the keys, is faster on a GPU than what torch picks by itself. One
# H100, 6,888 keys: 0.055 against 0.097 ms at 32 queries, 0.065 against 0.098 at 128, 0.107 against 0.100 at 200.
FEW_QUERIES = 128


def has_flash_attention(attention: Any, query: torch.Tensor) -> bool:
    """Whether `flash_attention` serves the queries (..., head_dim) of a layer.

    Args:
        attention: the `VidLaDAAttention`. It must run torch's attention, with a key for each query head.
    """
    if attention.config._attn_implementation != "sdpa" or attention.num_key_value_groups != 1 or attention.training:
        return False
    if not torch.backends.cuda.flash_sdp_enabled():  # switched off, or left out by `sdpa_kernel`
        return False
    if query.device.type == "cuda":
        return (
            torch.version.hip is None
            and torch.backends.cuda.is_flash_attention_available()
            and query.dtype in (torch.float16, torch.bfloat16)
            and query.shape[-1] % 8 == 0
            and query.shape[-1] <= 256
            and torch.cuda.get_device_capability(query.device) >= (8, 0)
        )
    return query.device.type == "cpu" and query.dtype != torch.float16


def flash_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of all queries to all keys.

    Args:
        query: (batch, heads, queries, head_dim).
        key, value: (batch, heads, keys, head_dim), keys at least one. Any strides, also of windows that overlap.

    Returns:
        (batch, heads, queries, head_dim), and (batch, heads, queries), float32 or float64: the logarithm of the sum of
        the exponentials of the scores.
    """
    if query.device.type == "cuda":
        outputs = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, scale=scaling)
    else:
        outputs = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, scale=scaling)
    return outputs[0], outputs[1]


def join_attention(
    out: torch.Tensor, weight: torch.Tensor, other: torch.Tensor, other_weight: torch.Tensor
) -> torch.Tensor:
    """The attention of some queries to two sets of keys together, from what `flash_attention` gave for each.

    Args:
        out, other: (..., head_dim).
        weight, other_weight: (...).
    """
    return torch.lerp(other, out, (weight - other_weight).sigmoid().to(out.dtype)[..., None])


__all__ = ["FEW_QUERIES", "flash_attention", "has_flash_attention", "join_attention"]
