"""Fine-tuning through `peft`: small matrices beside the text model's, and a check that they are put onto the base
that they were trained on.

An adapter's folder is peft's own, so anything that reads those reads it. It also holds `base_fingerprint.safetensors`,
which says what the base was: loaded onto other weights of the same shape, an adapter would work silently and wrongly.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

# Attention and MLP of the text model's layers; the tower has layers of the same names.
TEXT_LINEARS = r".*language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
FINGERPRINT = "base_fingerprint.safetensors"
SAMPLES = 64  # values of each tensor that the fingerprint reads


@dataclass(frozen=True)
class LoraOptions:
    """An adapter.

    Args:
        r: rank of its matrices.
        alpha: their product is scaled by alpha / r.
        dropout: of their input, in training, 0..1.
        target_modules: the linear layers that get one: a regular expression for whole names, or a list of names' ends.
    """

    r: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    target_modules: str | Sequence[str] = TEXT_LINEARS

    def __post_init__(self) -> None:
        if self.r < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise ValueError(
                "An adapter needs `r` of at least 1, `alpha` above 0 and `dropout` from 0 to below 1, got "
                f"r={self.r}, alpha={self.alpha}, dropout={self.dropout}."
            )
        if isinstance(self.target_modules, str):
            try:
                re.compile(self.target_modules)
            except re.error as error:
                raise ValueError(
                    f"`target_modules` is {self.target_modules!r}, no regular expression: {error}."
                ) from error


def add_adapter(model: nn.Module, options: LoraOptions | Mapping[str, Any] | None = None) -> Any:
    """Freezes a model and puts a new adapter around its layers; at first it changes no output.

    Returns:
        peft's `PeftModel`.

    Raises:
        ValueError: no layer is meant by `target_modules`.
    """
    from peft import LoraConfig, get_peft_model

    options = options if isinstance(options, LoraOptions) else LoraOptions(**(options or {}))
    target = options.target_modules
    config = LoraConfig(
        r=options.r,
        lora_alpha=options.alpha,  # type: ignore[arg-type]
        lora_dropout=options.dropout,
        target_modules=target if isinstance(target, str) else list(target),
    )
    return get_peft_model(model, config)  # type: ignore[arg-type]


def save_adapter(
    model: Any, folder: str | Path, base: nn.Module | None = None, state_dict: dict[str, Any] | None = None
) -> None:
    """Writes the adapter of `add_adapter`'s model, and what base it belongs to.

    Args:
        base, state_dict: the base and all weights of the model, where the model at hand holds only shards of them.
    """
    # No embeddings are trained: without this argument peft would ask the Hub about the base's.
    model.save_pretrained(folder, state_dict=state_dict, save_embedding_layers=False)
    name = model.peft_config["default"].base_model_name_or_path
    save_file(fingerprint_of(base or model), Path(folder) / FINGERPRINT, {"base": str(name)})


def load_adapter(model: nn.Module, folder: str | Path, merge: bool = False) -> Any:
    """Puts a saved adapter onto its base.

    Args:
        model: the base, loaded in any way and any floating type.
        merge: add the adapter into the weights, as fast as the base then, and return a model without `peft`.

    Raises:
        FileNotFoundError: the folder holds no adapter.
        ValueError: it belongs to another base, or a file is damaged.
    """
    from peft import PeftModel

    folder = Path(folder)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no {name}: pass the folder of an adapter.")
    try:
        refuse_other_base(folder, model)
        adapted = PeftModel.from_pretrained(model, str(folder))  # type: ignore[arg-type]
    except SafetensorError as error:
        raise ValueError(f"A file of the adapter in {folder} is damaged ({error}): copy it again.") from error
    return adapted.merge_and_unload() if merge else adapted.eval()


def refuse_other_base(folder: Path, model: nn.Module) -> None:
    """Raises a ValueError if the adapter of a folder says that it was trained on other weights than a model's."""
    kept = folder / FINGERPRINT
    if kept.is_file() and not is_same_base(load_file(kept), fingerprint_of(model)):
        with safe_open(kept, framework="pt") as file:
            base = file.metadata()["base"]
        raise ValueError(
            f"The adapter in {folder} was trained on another base ({base}): its weights are not those of this "
            "model. Load that base, or train an adapter for this one."
        )


@torch.no_grad()
def fingerprint_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Some values of every tensor of a base, by its name and shape, with or without an adapter around it."""
    return {
        # An odd step: even ones would read the same few columns of every row.
        f"{name} {tuple(tensor.shape)}": tensor.flatten()[:: tensor.numel() // SAMPLES | 1][:SAMPLES]
        .float()
        .cpu()
        .clone()
        for name, tensor in base_tensors(model).items()
    }


def is_same_base(known: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Whether two fingerprints differ by no more than by rounding to bfloat16 and float16, twice."""
    return known.keys() == other.keys() and all(
        torch.allclose(values, other[name], rtol=2**-7, atol=1e-7) for name, values in known.items()
    )


def base_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """A model's tensors by the names that they have without an adapter, the adapter's own left out."""
    return {
        name.removeprefix("base_model.model.").replace(".base_layer.", "."): tensor
        for name, tensor in model.state_dict().items()
        if ".lora_" not in name
    }


__all__ = ["LoraOptions", "add_adapter", "base_tensors", "fingerprint_of", "load_adapter", "save_adapter"]
