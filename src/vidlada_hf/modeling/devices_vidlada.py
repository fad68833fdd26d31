"""What a model's device is, and how exactly it computes."""

import torch
from torch import nn
from transformers.utils import is_tracing


def execution_device(module: nn.Module, inputs: torch.Tensor | None = None) -> torch.device:
    """Where a module computes: where its weights are, or where accelerate's hooks bring them (`device_map`).

    Args:
        inputs: of it; while a graph of it is made, they are where it computes.
    """
    if inputs is not None and is_tracing(inputs):
        return inputs.device
    for part in module.modules():
        hook = getattr(part, "_hf_hook", None)
        for one in getattr(hook, "hooks", (hook,)):
            if (device := getattr(one, "execution_device", None)) is not None:
                return torch.device(device)
    return next(module.parameters()).device


def move_to(other: torch.Tensor | None, tensor: torch.Tensor | None) -> torch.Tensor | None:
    """A tensor on the device of another; None of None."""
    return tensor if tensor is None or other is None else tensor.to(other.device)


def exact_dtype(device: torch.device) -> torch.dtype:
    """In which tokens are chosen: float64, or float32 on a device that has no float64 (Apple's)."""
    try:
        return torch.empty((), dtype=torch.float64, device=device).dtype
    except (TypeError, RuntimeError):
        return torch.float32


__all__ = ["exact_dtype", "execution_device", "move_to"]
