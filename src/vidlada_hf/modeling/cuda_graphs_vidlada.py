"""Steps captured in CUDA graphs: what the device does is recorded once and replayed, without Python in between.

Most steps of a `PlannedCache` recompute the block alone, and these are all of one shape. The first step of a shape
runs as it is, the second is captured, and later ones replay that with the values of their own plans. A graph reads and
writes the same memory each time: buffers with the tensors of a plan, the canvas, the embeddings and what the strategy
keeps. It belongs to one `generate`, and is freed with it.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from threading import Lock
from typing import Any

import torch
from transformers.utils import logging

from .cache_vidlada import DenoisingCache, PlannedCache
from .layer_functions_vidlada import has_hooks

logger = logging.get_logger(__name__)

_capturing = Lock()  # captures of several threads share a stream
_streams: dict[torch.device, torch.cuda.Stream] = {}


class CudaGraph:
    """Some work, captured.

    Args:
        pool: id of the memory pool, shared by graphs of which one is replayed at a time.
    """

    def __init__(self, work: Callable[[], torch.Tensor], device: torch.device, pool: Any) -> None:
        self.graph = torch.cuda.CUDAGraph()
        with _capturing, torch.cuda.device(device):
            current, stream = torch.cuda.current_stream(device), capture_stream(device)
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                # Errors of other threads, which are not capturing, are none of this capture's.
                self.graph.capture_begin(pool=pool, capture_error_mode="thread_local")
                try:
                    self.result = work()
                finally:
                    self.graph.capture_end()
            current.wait_stream(stream)

    def replay(self) -> torch.Tensor:
        """Does the work, and returns its result, which the next replay overwrites."""
        self.graph.replay()
        return self.result


def capture_stream(device: torch.device) -> torch.cuda.Stream:
    """The device's one stream to capture on, with the workspace of products there already: not in a graph's memory."""
    if device not in _streams:
        _streams[device] = torch.cuda.Stream(device)
        with torch.cuda.stream(_streams[device]):
            for dtype in (torch.float32, torch.bfloat16, torch.float16):
                torch.ones(8, 8, device=device, dtype=dtype).mm(torch.ones(8, 8, device=device, dtype=dtype))
    return _streams[device]


class StepGraphs:
    """Runs the steps of one `generate`, as they are or captured.

    Args:
        record: (work, device, pool) -> what replays it; by default a `CudaGraph`.
    """

    def __init__(self, device: torch.device, record: Callable[..., Any] | None = None) -> None:
        self.device, self.record, self.gave_up = device, record or CudaGraph, False
        self.pool: Any = None
        if device.type == "cuda":
            with torch.cuda.device(device):
                self.pool = torch.cuda.MemPool()  # dropped, it gives its memory back to the device
        self.seen: set[Hashable] = set()
        self.graphs: dict[Hashable, tuple[Any, list[torch.Tensor], list[torch.Tensor]]] = {}

    def run(self, plan: Any, work: Callable[[Any], torch.Tensor]) -> torch.Tensor:
        """What `work(plan)` gives, to be read before the next step.

        Args:
            plan: a `StepPlan`.
            work: does the same on the device for all plans that differ only in the values of their tensors.
        """
        tensors: list[torch.Tensor] = []
        key = describe(plan, tensors)
        if key in self.graphs:
            graph, buffers, filled = self.graphs[key]
            if any(a is not b for a, b in zip(tensors, filled, strict=True)):
                torch._foreach_copy_(buffers, tensors)
                self.graphs[key] = graph, buffers, tensors
            return graph.replay()
        if self.gave_up or not plan.repeats or key not in self.seen:
            self.seen.add(key)
            return work(plan)
        return self._capture(key, plan, tensors, work)

    def _capture(
        self, key: Hashable, plan: Any, tensors: list[torch.Tensor], work: Callable[[Any], torch.Tensor]
    ) -> torch.Tensor:
        buffers = [tensor.clone() for tensor in tensors]
        static = fill(plan, iter(buffers))
        try:
            graph = self.record(lambda: work(static), self.device, self.pool and self.pool.id)
        except Exception as error:  # a capture only records: nothing is done yet
            logger.info("Steps are not captured any more: %s", error)
            self.gave_up = True
            return work(plan)
        self.graphs[key] = graph, buffers, tensors
        return graph.replay()

    def close(self) -> None:
        """Frees all graphs and their memory."""
        self.graphs.clear()
        self.seen.clear()
        self.pool = None


@contextmanager
def step_graphs(model: Any, cache: DenoisingCache, device: torch.device, enabled: bool) -> Iterator[StepGraphs | None]:
    """The graphs of one `generate`; None where steps are not captured, for a reason that is logged as information."""
    reason = "`cuda_graphs` is False" if not enabled else why_not_captured(model, cache, device)
    if reason is not None:
        logger.info("Steps are not captured: %s.", reason)
        yield None
        return
    graphs = StepGraphs(device)
    cache.keeps_shape = True  # type: ignore[attr-defined]
    try:
        yield graphs
    finally:
        cache.keeps_shape = False  # type: ignore[attr-defined]
        graphs.close()


def why_not_captured(model: Any, cache: DenoisingCache, device: torch.device) -> str | None:
    """Why the steps of a model with a strategy cannot be captured; None if they can."""
    text_model, name = model.model.language_model, type(cache).__name__
    if not isinstance(cache, PlannedCache) or not vars(type(cache)).get("captures", False):
        return f"{name} does not say that it can be (`captures`)"
    if text_model.config._attn_implementation not in ("sdpa", "eager"):
        return f"the attention {text_model.config._attn_implementation!r} may look at its masks on the host"
    if model.training:
        return "the model is in training"
    modules = [*text_model.modules(), *model.lm_head.modules()]
    if any(has_hooks(module) for module in modules):
        return "a module has hooks, which are called in Python"
    tensors = [tensor for module in modules for tensor in (*module.parameters(False), *module.buffers(False))]
    if any(tensor.device != device for tensor in tensors):
        return f"parts of the model are not on {device}"
    if device.type != "cuda":
        return f"the device is {device}, and only CUDA has graphs"
    return None


# --- plans -----------------------------------------------------------------------------------------------------------


def describe(plan: Any, tensors: list[torch.Tensor]) -> Hashable:
    """What a plan says besides the values of its tensors, which are appended to `tensors` in order."""
    if isinstance(plan, torch.Tensor):
        tensors.append(plan)
        return plan.shape, plan.dtype
    if isinstance(plan, tuple):
        return tuple(describe(part, tensors) for part in plan)
    if is_dataclass(plan):
        return type(plan), tuple(describe(getattr(plan, field.name), tensors) for field in fields(plan))
    return plan


def fill(plan: Any, tensors: Iterator[torch.Tensor]) -> Any:
    """The plan with other tensors, in the order of `describe`."""
    if isinstance(plan, torch.Tensor):
        return next(tensors)
    if isinstance(plan, tuple):
        return tuple(fill(part, tensors) for part in plan)
    if is_dataclass(plan) and not isinstance(plan, type):
        return replace(plan, **{field.name: fill(getattr(plan, field.name), tensors) for field in fields(plan)})
    return plan


__all__ = ["StepGraphs", "step_graphs", "why_not_captured"]
