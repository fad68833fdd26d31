"""Counting instead of timing: floating-point operations, bytes alive, bytes that a cache strategy keeps.

Counts do not depend on what else a machine does, so they can be compared between machines and tested.
"""

import dataclasses
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def count_flops(run: Callable[[], Any]) -> int:
    """The floating-point operations of a call: matrix products, convolutions and attention, 2 for a multiply-add.

    Element-wise work is not counted.
    """
    with flop_counter() as counter:
        run()
    return counter.get_total_flops()


def flop_counter() -> FlopCounterMode:
    """torch's counter, which by itself would miss attention on the CPU."""
    return FlopCounterMode(
        display=False,
        custom_mapping={torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention_flops},
    )


def _cpu_attention_flops(query: Any, key: Any, value: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    return sdpa_flop_count(query, key, value)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are made, and still held, while it is entered: what a device's allocator
    would report, without its rounding and without what single operations need inside.

    Tensors from before, such as weights, do not count. Views count once.

    Attributes:
        now, peak: bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._storages: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._register((args, kwargs), from_before=True)
        made = func(*args, **(kwargs or {}))
        self._register(made, from_before=False)
        return made

    def _register(self, tree: Any, from_before: bool) -> None:
        for leaf in tree_leaves(tree):
            if not isinstance(leaf, torch.Tensor):
                continue
            storage = leaf.untyped_storage()
            key, size = id(storage), 0 if from_before else storage.nbytes()
            if key in self._storages:
                continue

            def forget(_: Any, key: int = key, size: int = size) -> None:
                del self._storages[key]
                self.now -= size

            self._storages[key] = weakref.ref(storage, forget)
            self.now += size
            self.peak = max(self.peak, self.now)


def count_kept_bytes(holder: Any) -> int:
    """Bytes of all tensors that an object holds in its attributes, however deep in containers; views count once.

    Of a cache strategy in the middle of a `generate`: the keys, values, boundaries and indices that it keeps. The
    layout, which `generate` made, is left out.
    """
    storages: dict[int, int] = {}
    for tensor in _tensors({name: value for name, value in vars(holder).items() if name != "layout"}, set()):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(storages.values())


def _tensors(value: Any, visited: set[int]) -> Iterator[torch.Tensor]:
    if id(value) in visited:
        return
    visited.add(id(value))
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in list(value.values()):
            yield from _tensors(item, visited)
    elif isinstance(value, list | tuple | set):
        for item in value:
            yield from _tensors(item, visited)
    elif dataclasses.is_dataclass(value) or "vidlada" in type(value).__module__:
        yield from _tensors(getattr(value, "__dict__", {}), visited)


__all__ = ["LiveBytes", "count_flops", "count_kept_bytes", "flop_counter"]
