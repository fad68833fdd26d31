"""Checkpoints: what a run needs to go on where it was stopped, stored without pickle, and the last complete one.

Optimizer, scheduler and random states are nested containers of tensors and plain values. The tensors go into one
safetensors file, the rest into JSON beside it, where each tensor is named by its path. States are stored whole: those
that FSDP has cut into shards are gathered first, so that a checkpoint does not depend on the number of processes.
DeepSpeed keeps its shards in files of its own.
"""

import json
import os
import random
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

TENSOR = "__tensor__"
STATE_SUFFIXES = (".json", ".safetensors")


def save_state(state: Any, path: Path) -> None:
    """Writes nested dicts, lists and tuples of tensors, numbers, strings, booleans and None.

    Args:
        path: without suffix; `.json` and `.safetensors` are written.

    Raises:
        TypeError: another type; the message gives its path in the state.
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


def _split(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        tensors[path] = value.detach().cpu().clone().contiguous()
        return {TENSOR: path}
    if isinstance(value, dict):  # JSON knows only string keys, and optimizers number their parameters
        return {"dict": [[key, _split(item, f"{path}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_split(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"Cannot store {path or 'the state'}: {type(value).__name__} is neither a tensor nor a plain value."
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


# States that FSDP has cut into shards. All processes must call these three together.


def gather_optimizer(model: nn.Module, optimizer: Any) -> dict[str, Any]:
    """The state of accelerate's optimizer by the parameters' names, on the CPU of the first process; {} in others."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return get_optimizer_state_dict(model, optimizer.optimizer, options=options)


def scatter_optimizer(model: nn.Module, optimizer: Any, state: dict[str, Any]) -> None:
    """Gives every process its shard of what `gather_optimizer` returned; only the first one's `state` counts."""
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_optimizer_state_dict(model, optimizer.optimizer, state, options=options)


def scatter_weights(model: nn.Module, weights: dict[str, Any]) -> Any:
    """Gives every process its shard of whole weights; only the first one's count.

    Returns:
        What `load_state_dict` returns: names that are missing, and unexpected ones.
    """
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=False)
    return set_model_state_dict(model, weights, options=options)


def last_checkpoint(output_dir: str | Path, processes: int = 1) -> str | None:
    """The newest complete checkpoint of a run, or None. Newer ones, which were being written when the run died, are
    deleted: `Trainer` would count them among those to keep.

    Args:
        processes: of the run that wrote it; each writes a file of its own, and all call this together.
    """
    numbers = (re.fullmatch(r"checkpoint-(\d+)", folder.name) for folder in Path(output_dir).glob("checkpoint-*"))
    newest_first = sorted((int(match[1]) for match in numbers if match), reverse=True)
    folders = [Path(output_dir) / f"checkpoint-{number}" for number in newest_first]
    first = next((i for i, folder in enumerate(folders) if is_complete(folder, processes)), len(folders))
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # half deleted, a folder could look complete to another process
    if os.environ.get("RANK", "0") == "0":
        for folder in folders[:first]:
            shutil.rmtree(folder)
    return str(folders[first]) if first < len(folders) else None


def is_complete(checkpoint: Path, processes: int) -> bool:
    """Whether all files of a checkpoint are there and whole; of tensors only the headers are read."""
    needed = ["trainer_state.json", *(f"random_{i}{suffix}" for i in range(processes) for suffix in STATE_SUFFIXES)]
    if not all((checkpoint / name).is_file() for name in needed):
        return False
    try:
        for file in checkpoint.glob("*.json"):
            json.loads(file.read_text())
        for file in checkpoint.glob("*.safetensors"):
            with safe_open(file, framework="pt"):
                pass
    except (OSError, ValueError, SafetensorError):
        return False
    return True


__all__ = [
    "gather_optimizer",
    "last_checkpoint",
    "load_state",
    "random_state",
    "save_state",
    "scatter_optimizer",
    "scatter_weights",
    "set_random_state",
]
