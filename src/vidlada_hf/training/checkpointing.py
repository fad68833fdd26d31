"""Checkpoints: what a run needs to go on where it was stopped, stored without pickle, and the last complete one.

Optimizer, scheduler and random states are nested containers of tensors and plain values. The tensors go into one
safetensors file, the rest into JSON beside it, where each tensor is named by its path. States are stored whole: those
that FSDP has cut into shards are gathered first, so that a checkpoint does not depend on the number of processes.
DeepSpeed keeps its shards in files of its own. SHA256SUMS is written last: it says that all of a checkpoint is there,
and what is in it.
"""

import json
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from transformers.utils import logging

from ..hub.checksums import find_damage

logger = logging.get_logger(__name__)

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


def last_checkpoint(output_dir: str | Path) -> str | None:
    """The newest whole checkpoint of a run, or None. All processes call this together.

    Newer ones, which were being written when the run died or are damaged, become "damaged-checkpoint-N", with a
    warning: `Trainer` would count them among those to keep. Only those of the last time are kept.
    """
    return in_first_process(lambda: _last_whole(Path(output_dir)))


def _last_whole(run: Path) -> str | None:
    numbers = (re.fullmatch(r"checkpoint-(\d+)", folder.name) for folder in run.glob("checkpoint-*"))
    damaged: list[tuple[Path, str]] = []
    whole = None
    for number in sorted((int(match[1]) for match in numbers if match), reverse=True):
        folder = run / f"checkpoint-{number}"
        problems = describe_damage(folder)
        if not problems:
            whole = folder
            break
        damaged.append((folder, problems))
    for old in run.glob("damaged-checkpoint-*") if damaged else ():
        shutil.rmtree(old)
    for folder, problems in damaged:
        aside = folder.rename(run / f"damaged-{folder.name}")
        start = f"from {whole}" if whole else "from the beginning"
        logger.warning(f"{folder} is not whole ({problems}). It is {aside.name} now, and the run goes on {start}.")
    return str(whole) if whole else None


def describe_damage(checkpoint: str | Path) -> str:
    """What of a checkpoint is missing or damaged, in words; "" if it is whole. Every file is read, see `checksums`."""
    try:
        problems = find_damage(checkpoint)
    except (OSError, ValueError) as error:
        return str(error)
    return "; ".join(problems[:4]) + ("; ..." if len(problems) > 4 else "")


def in_first_process(compute: Callable[[], Any]) -> Any:
    """What the first process computes, in all of them; they call this together."""
    result = [compute() if os.environ.get("RANK", "0") == "0" else None]
    if torch.distributed.is_initialized():
        torch.distributed.broadcast_object_list(result)
    return result[0]


__all__ = [
    "describe_damage",
    "gather_optimizer",
    "in_first_process",
    "last_checkpoint",
    "load_state",
    "random_state",
    "save_state",
    "scatter_optimizer",
    "scatter_weights",
    "set_random_state",
]
