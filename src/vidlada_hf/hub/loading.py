"""A checkpoint for inference: its weights on a device, and its generation settings with those of a user."""

import os
from typing import Any

import torch

from ..modeling.arguments_vidlada import check_seed
from ..modeling.generation_config_vidlada import VidLaDAGenerationConfig
from ..modeling.modeling_vidlada import VidLaDAForConditionalGeneration
from ..setting_names import check_dtype


def resolve_device(device: str | None) -> str:
    """The name of a device that is there.

    Args:
        device: None: a GPU if there is one (of several, that of `LOCAL_RANK`, as torchrun counts), else the CPU.

    Raises:
        ValueError: no such device.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device is None:
        return f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % count}" if count else "cpu"
    try:
        torch.zeros(1, device=device).item()  # "meta" has tensors, and no values
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without CUDA
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"There is no device {device!r} here: leave it out for the best there is ({reason})."
        ) from error
    return device


def load_network(name: str, device: str, dtype: str = "auto") -> VidLaDAForConditionalGeneration:
    """The model in eval mode.

    Args:
        name: of `find_checkpoint`.
        device: of `resolve_device`.
        dtype: of the weights; "auto": as stored.

    Raises:
        ValueError: no such dtype.
    """
    network = VidLaDAForConditionalGeneration.from_pretrained(name, dtype=check_dtype(dtype))
    return network.to(device).eval()  # type: ignore[arg-type]


def load_settings(name: str, settings: dict[str, Any]) -> VidLaDAGenerationConfig:
    """The checkpoint's generation config with the settings in it.

    Raises:
        ValueError: a setting that is unknown or impossible.
    """
    config = VidLaDAGenerationConfig.from_pretrained(name)
    if "cache_strategy" in settings:  # a stored `cache_config` belongs to the stored name
        settings = {"cache_config": None} | settings
    config.update(**settings)
    if settings.get("seed") is not None:
        check_seed("seed", settings["seed"])
    config.blocks()  # raises where a division is not exact
    return config


__all__ = ["load_network", "load_settings", "resolve_device"]
