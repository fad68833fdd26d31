"""Counting bytes: of the tensors alive, of what a cache strategy keeps, and of what a process or GPU had in use."""

import dataclasses
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


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


class PeakMemory:
    """The most memory that was in use between entering and leaving.

    Attributes:
        bytes: on a GPU what torch had allocated (`max_memory_allocated`), weights included; on the CPU the resident set
            of this process, also with what the allocator has not given back. None where the system does not tell.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bytes: int | None = None

    def __enter__(self) -> "PeakMemory":
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self._can_reset = _reset_resident_peak()
        return self

    def __exit__(self, *_: Any) -> None:
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device)
        elif self._can_reset:
            self.bytes = _resident_peak()


def _reset_resident_peak() -> bool:
    """Whether Linux could be asked to forget the highest resident set of this process so far."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return sys.platform == "linux"


def _resident_peak() -> int | None:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


__all__ = ["LiveBytes", "PeakMemory", "count_kept_bytes"]
