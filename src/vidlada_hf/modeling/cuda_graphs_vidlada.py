"""Steps captured in CUDA graphs: what the device does is recorded once and replayed, without Python in between.

Most steps of a `PlannedCache` recompute the block alone, and these are all of one shape. The first step of a shape
runs as it is, the second is captured, and later ones replay that with the values of their own plans. A graph reads and
writes the same memory each time: buffers with the tensors of a plan, the canvas, the embeddings and what the strategy
keeps. It belongs to one `generate`, and is freed with it; the memory that its work needed serves the next.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from transformers.utils import logging

from .cache_vidlada import DenoisingCache, PlannedCache, capturing
from .layer_functions_vidlada import has_hooks

logger = logging.get_logger(__name__)


class GraphMemory:
    """What the graphs of one `generate` at a time compute in. It is kept for later ones, so that it does not grow.

    A pool lives as long as some graph of it: an empty one keeps it.

    Attributes:
        failed: a capture failed in this process. The allocator may then take it for one that goes on, so that there are
            no more.
    """

    MOST_IDLE = 4  # on a device; more only where more calls ran beside each other

    failed = False
    streams: dict[torch.device, torch.cuda.Stream] = {}
    idle: dict[torch.device, list["GraphMemory"]] = {}

    def __init__(self, device: torch.device) -> None:
        self.device, self.pool, self.free = device, torch.cuda.graph_pool_handle(), torch.cuda.Event()
        self.keeper = torch.cuda.CUDAGraph()
        self.record(self.keeper, lambda: torch.zeros(1, device=device))
        self.free.record(torch.cuda.current_stream(device))

    @classmethod
    def take(cls, device: torch.device) -> "GraphMemory":
        """One that nobody uses; the current stream waits until its last user is done."""
        with capturing, torch.cuda.device(device):
            memory = cls.idle[device].pop() if cls.idle.get(device) else cls(device)
            torch.cuda.current_stream(device).wait_event(memory.free)
            return memory

    def give_back(self) -> None:
        """For the next `generate`, once the current stream has come so far."""
        with capturing, torch.cuda.device(self.device):
            self.free.record(torch.cuda.current_stream(self.device))
            idle = self.idle.setdefault(self.device, [])
            if len(idle) < self.MOST_IDLE:
                idle.append(self)
            else:
                self.keeper.reset()

    def record(self, graph: torch.cuda.CUDAGraph, work: Callable[[], Any]) -> None:
        """Captures some work, which leaves nothing in the pool, on the device's one stream for that."""
        if self.device not in self.streams:
            self.streams[self.device] = torch.cuda.Stream(self.device)
        current, stream = torch.cuda.current_stream(self.device), self.streams[self.device]
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            for dtype in (torch.float32, torch.bfloat16, torch.float16):  # products' workspace: not in the pool
                torch.ones(8, 8, device=self.device, dtype=dtype).mm(torch.ones(8, 8, device=self.device, dtype=dtype))
            # Errors of other threads, which are not capturing, are none of this capture's.
            try:
                graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")
                try:
                    work()
                finally:
                    graph.capture_end()
            except BaseException:
                GraphMemory.failed = True
                with suppress(Exception):
                    torch._C._cuda_endAllocateToPool(self.device.index, self.pool)
                raise
        current.wait_stream(stream)


class CudaGraph:
    """Some work, captured."""

    def __init__(self, work: Callable[[], Any], memory: GraphMemory) -> None:
        self.graph = torch.cuda.CUDAGraph()
        with capturing, torch.cuda.device(memory.device):
            memory.record(self.graph, work)

    def replay(self) -> None:
        """Does the work."""
        self.graph.replay()

    def close(self) -> None:
        """Frees the graph."""
        self.graph.reset()


class StepGraphs:
    """Runs the steps of one `generate`, as they are or captured."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.gave_up = device, False
        self.memory: Any = None
        self.shapes: dict[Hashable, torch.Size] = {}  # of what a step gave, by what describes its plan
        self.graphs: dict[Hashable, tuple[Any, list[torch.Tensor], list[torch.Tensor]]] = {}
        self.results: dict[torch.Size, torch.Tensor] = {}  # of all graphs, one for a shape

    def run(self, plan: Any, work: Callable[[Any], torch.Tensor]) -> torch.Tensor:
        """What `work(plan)` gives, to be read before the next step.

        Args:
            plan: a `StepPlan`.
            work: does the same on the device for all plans that differ only in the values of their tensors.
        """
        tensors: list[torch.Tensor] = []
        key = describe(plan, tensors)
        if key in self.shapes and plan.repeats and key not in self.graphs and not self.gave_up:
            self._capture(key, plan, tensors, work)
        if key not in self.graphs:
            result = work(plan)
            self.shapes[key] = result.shape
            return result
        graph, buffers, filled = self.graphs[key]
        if any(a is not b for a, b in zip(tensors, filled, strict=True)):
            torch._foreach_copy_(buffers, tensors)
            self.graphs[key] = graph, buffers, tensors
        graph.replay()
        return self.results[self.shapes[key]]

    def _capture(
        self, key: Hashable, plan: Any, tensors: list[torch.Tensor], work: Callable[[Any], torch.Tensor]
    ) -> None:
        """Captures a step, if that can be: recording does nothing yet, so that the step may then run as it is."""
        try:
            if self.memory is None and self.device.type == "cuda":
                self.memory = GraphMemory.take(self.device)
            shape, buffers = self.shapes[key], [tensor.clone() for tensor in tensors]
            if shape not in self.results:
                self.results[shape] = torch.empty(shape, dtype=torch.float32, device=self.device)
            result, static = self.results[shape], fill(plan, iter(buffers))
            self.graphs[key] = CudaGraph(lambda: result.copy_(work(static)), self.memory), buffers, tensors
        except Exception as error:
            logger.info("Steps are not captured any more: %s", error)
            self.gave_up = True

    def close(self) -> None:
        """Frees the graphs. Their memory serves the next call, unless a capture failed in it."""
        with capturing:
            for graph, _, _ in self.graphs.values():
                graph.close()
            self.graphs.clear()
            self.results.clear()
            if self.memory is not None and not GraphMemory.failed:
                self.memory.give_back()


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
    """Why the steps of a model with a strategy cannot be captured; None if they can.

    A capture that fails harms the whole process, so that only what is known to wait for nothing is let in.
    """
    text_model, name = model.model.language_model, type(cache).__name__
    if not isinstance(cache, PlannedCache) or not vars(type(cache)).get("captures", False):
        return f"{name} does not say that it can be (`captures`)"
    if text_model.config._attn_implementation not in ("sdpa", "eager"):
        return f"the attention {text_model.config._attn_implementation!r} may look at its masks on the host"
    if (rope := getattr(text_model.rotary_emb, "rope_type", "default")) in ("dynamic", "longrope"):
        return f"rotary embedding of type {rope!r} looks at positions on the host"
    if model.training:
        return "the model is in training"
    modules = [*text_model.modules(), *model.lm_head.modules()]
    known = {"torch", "transformers", "peft", type(text_model).__module__.partition(".")[0]}
    if strange := [type(m).__name__ for m in modules if type(m).__module__.partition(".")[0] not in known]:
        return f"a {strange[0]} may look at values on the host"
    if any(has_hooks(module) for module in modules):
        return "a module has hooks, which are called in Python"
    tensors = [tensor for module in modules for tensor in (*module.parameters(False), *module.buffers(False))]
    if strange := [type(tensor.data).__name__ for tensor in tensors if type(tensor.data) is not torch.Tensor]:
        return f"a weight is quantized or split (it is of type {strange[0]}), and may look at values on the host"
    if any(tensor.device != device for tensor in tensors):
        return f"parts of the model are not on {device}"
    if device.type != "cuda":
        return f"the device is {device}, and only CUDA has graphs"
    if GraphMemory.failed:
        return "a capture failed in this process"
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


__all__ = ["CudaGraph", "StepGraphs", "step_graphs", "why_not_captured"]
