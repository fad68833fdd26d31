"""What a video cache belongs to, in a few digits: the weights that computed it, and the pixels or features it shows."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from .outputs_vidlada import pooled_features

SAMPLED_WEIGHTS = 16  # values of a weight that are looked at in every call, at least
SEEING = ("vision_tower", "multi_modal_projector", "image_newline")  # what makes features of pixels
# Fields of the configuration, of a part and of how pixels become features, that change what the same weights compute.
CONFIGURED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "rope_parameters", "rms_norm_eps")
CONFIGURED_SIGHT = ("hidden_act", "layer_norm_eps", "image_size", "patch_size")
CONFIGURED_FEATURES = ("pooling_stride", "pooling_mode", "newline_position", "projector_hidden_act")

# Of each part of a model what its fingerprint was made from, and the fingerprint.
_kept: WeakKeyDictionary[nn.Module, tuple[Any, str]] = WeakKeyDictionary()


def fingerprint_checkpoint(model: Any, video: str) -> str:
    """Of the parts of a model that made a video cache: a name and 16 hexadecimal digits each.

    Features that were given pass tower, projector and newline by. A part that is absent, or whose weights are elsewhere
    (offloaded), is left out.

    Args:
        model: a `VidLaDAModel`.
        video: what `fingerprint_visual` returned.
    """
    parts = {"language_model": fingerprint_model(model.language_model)}
    if not video.startswith("features"):
        for name in SEEING:
            module = getattr(model, name, None)
            if module is not None and not any(weight.is_meta for weight in module.parameters()):
                parts[name] = fingerprint_model(module)
        about = [getattr(model.config, name, None) for name in CONFIGURED_FEATURES]
        about += [getattr(model.config.vision_config, name, None) for name in CONFIGURED_SIGHT]
        parts["sight"] = _digest(json.dumps(about), b"")
    return " ".join(f"{name}:{digits}" for name, digits in parts.items())


def is_same_checkpoint(known: str, found: str) -> bool:
    """Whether two fingerprints agree on the text model, and on all other parts that both could look at."""
    ours, theirs = (dict(part.partition(":")[::2] for part in each.split()) for each in (known, found))
    return "language_model" in ours and all(theirs.get(name, digits) == digits for name, digits in ours.items())


@torch.no_grad()
def fingerprint_model(part: Any) -> str:
    """Of the configuration, the adapters and all weights of a part: 16 hexadecimal digits.

    The weights are read once, and again when one is replaced, moved or changed in place, which torch counts. It does
    not count what is written through `.data`: so some values of each weight are looked at in every call.
    """
    weights, adapters = list_weights(part)
    config = getattr(part, "config", None)
    about = json.dumps([[getattr(config, name, None) for name in CONFIGURED], adapters], sort_keys=True)
    values = to_bytes([sample(weight, SAMPLED_WEIGHTS) for weight in weights])
    state = about, [_identity(weight) for weight in weights], values
    kept = _kept.get(part)
    if kept is None or kept[0] != state:
        sums = [(tuple(weight.shape), str(weight.dtype), sum_bits(weight)) for weight in weights]
        kept = _kept[part] = state, _digest(about + str(sums), values)
    return kept[1]


def list_weights(part: Any) -> tuple[list[torch.Tensor], list[Any]]:
    """The weights whose values are here, as ordinary tensors; and which adapters of `peft` are on, whose weights are
    there either way. `modules()` takes ten times as long."""
    weights, adapters, modules = [], [], [part]
    while modules:
        module = modules.pop()
        modules += filter(None, module._modules.values())
        for weight in module._parameters.values():
            if weight is not None and not weight.is_meta:
                weights += ordinary_tensors(weight)
        if isinstance(getattr(type(module), "disable_adapters", None), property):
            adapters.append([module.disable_adapters, list(module.active_adapters), dict(module.scaling)])
    return weights, adapters


def ordinary_tensors(weight: Any) -> list[torch.Tensor]:
    """A weight itself; of one that is cut over processes this one's part, of a quantized one what it is made of."""
    if hasattr(weight, "to_local"):
        return [weight.to_local()]
    if not hasattr(weight, "__tensor_flatten__"):
        return [weight]
    return [tensor for name in weight.__tensor_flatten__()[0] for tensor in ordinary_tensors(getattr(weight, name))]


def fingerprint_visual(visual: dict[str, Any]) -> str | None:
    """Of all pixels, or else of the features, of videos and images; None where neither is given.

    Each row and each column of a frame (or of the features) is summed, so that every value counts, where it stands.

    Args:
        visual: visual arguments of `generate`. Values are looked at in bfloat16, which is the same in half precision.
    """
    pixels = [visual[name] for name in ("pixel_values", "pixel_values_videos") if visual.get(name) is not None]
    features = pooled_features(visual.get("video_features"))
    kind, tensors = ("pixels", [tensor.flatten(0, -4) for tensor in pixels])
    if not pixels and features is not None:
        features = features if isinstance(features, torch.Tensor) else torch.cat([*features])
        kind, tensors = "features", [features.flatten(0, -2)]
    if not tensors:
        return None
    # A copy of its own can be read four values at a time, as whole numbers, which overflow alike everywhere.
    halves = [each.to(torch.bfloat16, copy=True, memory_format=torch.contiguous_format) for each in tensors]
    whole = [half.view(torch.int64 if half.shape[-1] % 4 == 0 else torch.int16) for half in halves]
    sums = [each.sum(side, dtype=torch.int64).flatten() for each in whole for side in (-1, -2)]
    return f"{kind} " + _digest(str([tuple(tensor.shape) for tensor in tensors]), to_bytes(sums))


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


__all__ = ["fingerprint_checkpoint", "fingerprint_model", "fingerprint_visual", "is_same_checkpoint"]
