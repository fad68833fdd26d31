"""What a video cache belongs to, in a few digits: the weights that computed it, and the pixels or features it shows."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from .outputs_vidlada import pooled_features

SAMPLED_WEIGHTS, SAMPLED_PIXELS = 16, 4096  # values of a tensor that are looked at, at least
CONFIGURED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "rope_parameters", "rms_norm_eps")

# Of each text model what its fingerprint was made from, and the fingerprint.
_kept: WeakKeyDictionary[nn.Module, tuple[Any, str]] = WeakKeyDictionary()


@torch.no_grad()
def fingerprint_model(text_model: Any) -> str:
    """Of the configuration, the adapters and all weights: 16 hexadecimal digits.

    The weights are read once, and again when one is replaced, moved or changed in place, which torch counts. It does
    not count what is written through `.data`: so some values of each weight are looked at in every call.
    """
    weights, adapters = list_weights(text_model)
    about = json.dumps([[getattr(text_model.config, name, None) for name in CONFIGURED], adapters], sort_keys=True)
    values = to_bytes([sample(weight, SAMPLED_WEIGHTS) for weight in weights])
    state = about, [_identity(weight) for weight in weights], values
    kept = _kept.get(text_model)
    if kept is None or kept[0] != state:
        sums = [(tuple(weight.shape), str(weight.dtype), sum_bits(weight)) for weight in weights]
        kept = _kept[text_model] = state, _digest(about + str(sums), values)
    return kept[1]


def list_weights(text_model: Any) -> tuple[list[torch.Tensor], list[Any]]:
    """The weights whose values are here (of those cut over processes this one's part); and which adapters of `peft`
    are on, whose weights are there either way. `modules()` takes ten times as long."""
    weights, adapters, modules = [], [], [text_model]
    while modules:
        module = modules.pop()
        modules += filter(None, module._modules.values())
        for weight in module._parameters.values():
            if weight is not None and not weight.is_meta:
                weights.append(weight.to_local() if hasattr(weight, "to_local") else weight)
        if isinstance(getattr(type(module), "disable_adapters", None), property):
            adapters.append([module.disable_adapters, list(module.active_adapters), dict(module.scaling)])
    return weights, adapters


def fingerprint_visual(visual: dict[str, Any]) -> str | None:
    """Of some values of the pixels, or else of the features, of videos and images; None where neither is given.

    Args:
        visual: visual arguments of `generate`. Values are looked at in bfloat16, which is the same in half precision.
    """
    pixels = [visual[name] for name in ("pixel_values", "pixel_values_videos") if visual.get(name) is not None]
    features = pooled_features(visual.get("video_features"))
    kind, tensors = ("pixels", pixels) if pixels or features is None else ("features", list(features))
    if not tensors:
        return None
    tensors = [tensor.flatten(0, -4) if kind == "pixels" else tensor for tensor in tensors]
    samples = [sample(tensor, SAMPLED_PIXELS).to(torch.bfloat16) for tensor in tensors]
    return f"{kind} " + _digest(str([tuple(tensor.shape) for tensor in tensors]), to_bytes(samples))


def sample(tensor: torch.Tensor, count: int) -> torch.Tensor:
    """(at most 2 x count,): evenly spaced values, a view where the tensor is contiguous."""
    size = tensor.numel()
    stride = size // count or 1
    return tensor.contiguous().as_strided((-(-size // stride),), (stride,))


def sum_bits(tensor: torch.Tensor) -> int:
    """The sum of all values, their bits read as whole numbers."""
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}.get(tensor.element_size(), torch.uint8)
    return int(tensor.contiguous().view(whole).sum(dtype=torch.int64))


def to_bytes(tensors: Sequence[torch.Tensor]) -> bytes:
    """The bytes of flat tensors; one copy to the CPU for each device and dtype."""
    alike: dict[Any, list[torch.Tensor]] = {}
    for tensor in tensors:
        alike.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    return b"".join(torch.cat(each).view(torch.uint8).cpu().numpy().tobytes() for each in alike.values())


def _identity(weight: torch.Tensor) -> tuple[Any, ...]:
    """Changes when a weight is replaced, moved, cast or, other than through `.data`, written to."""
    version = -1 if weight.is_inference() else weight._version
    return weight.data_ptr(), version, weight.dtype, weight.device


def _digest(about: str, values: bytes) -> str:
    return hashlib.sha256(about.encode() + values).hexdigest()[:16]


__all__ = ["fingerprint_model", "fingerprint_visual"]
