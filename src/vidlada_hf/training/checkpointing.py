"""What a run needs besides weights to go on where it was stopped, stored without pickle.

Optimizer, scheduler and random states are nested containers of tensors and plain values. The tensors go into one
safetensors file, the rest into JSON beside it, where each tensor is named by its place.
"""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

TENSOR = "__tensor__"
STATE_SUFFIXES = (".json", ".safetensors")


def save_state(state: Any, path: Path) -> None:
    """Writes nested dicts, lists and tuples of tensors, numbers, strings, booleans and None.

    Args:
        path: without suffix; `.json` and `.safetensors` are written.

    Raises:
        TypeError: another type, with its place.
    """
    tensors: dict[str, torch.Tensor] = {}
    plain = _split(state, "", tensors)
    save_file(tensors, path.with_suffix(".safetensors"))
    path.with_suffix(".json").write_text(json.dumps(plain))


def load_state(path: Path) -> Any:
    """What `save_state` wrote.

    Raises:
        FileNotFoundError: there is none; the message names the file.
    """
    for file in map(path.with_suffix, STATE_SUFFIXES):
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing: the checkpoint is incomplete, resume from an earlier one.")
    plain = json.loads(path.with_suffix(".json").read_text())
    return _join(plain, load_file(path.with_suffix(".safetensors")))


def _split(value: Any, place: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        tensors[place] = value.detach().cpu().clone().contiguous()
        return {TENSOR: place}
    if isinstance(value, dict):  # JSON knows only string keys, and optimizers number their parameters
        return {"dict": [[key, _split(item, f"{place}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_split(item, f"{place}/{i}", tensors) for i, item in enumerate(value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"Cannot store {place or 'the state'}: {type(value).__name__} is neither a tensor nor a plain value."
    )


def _join(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == TENSOR:
        return tensors[content]
    if kind == "dict":
        return {key: _join(item, tensors) for key, item in content}
    items = [_join(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items


def random_state() -> dict[str, Any]:
    """The states of the random generators of Python, numpy, torch and the CUDA devices."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    words = torch.from_numpy(np.asarray(keys, dtype=np.int64))
    return {
        "python": random.getstate(),
        "numpy": (name, words, int(position), int(has_gauss), float(gauss)),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restores what `random_state` returned."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


__all__ = ["load_state", "random_state", "save_state", "set_random_state"]
