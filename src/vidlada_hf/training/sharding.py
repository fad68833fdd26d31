"""Whole states of a model that FSDP has cut into shards: what a checkpoint holds, whatever the number of processes.

All processes must call these functions together. DeepSpeed keeps its shards in files of its own.
"""

from typing import Any

from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)


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


__all__ = ["gather_optimizer", "scatter_optimizer", "scatter_weights"]
