"""What a cache strategy costs on paper: operations and bytes of each step, from its settings and the sequence alone.

A layer that computes c of n tokens, with p pairs of a query and a key in its attention, does
2 c (parameters of the layer) + 4 p (heads x head size) operations. A step reads every weight once, and the keys and
values of all tokens. So it takes at least max(operations / speed of products, bytes / speed of memory): the floor that
a measured time is printed beside.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any

import torch

from ..modeling.cache_vidlada import DenoisingCache, DenoisingStep, NoCache, SequenceLayout
from ..modeling.chunk_attention_vidlada import evenly_spaced
from ..modeling.dllm_cache_vidlada import DLLMCache
from ..modeling.kv_cache_vidlada import SelectiveKVCache
from ..modeling.mars_cache_vidlada import MARSCache, MARSCacheConfig


@dataclass(frozen=True)
class TextShape:
    """The sizes of a text model."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    head_dim: int
    vocabulary: int

    @classmethod
    def of(cls, config: Any) -> "TextShape":
        """Of a `VidLaDATextConfig`, or a config with the same fields."""
        heads = config.num_attention_heads
        return cls(
            hidden=config.hidden_size,
            intermediate=config.intermediate_size,
            layers=config.num_hidden_layers,
            heads=heads,
            key_value_heads=config.num_key_value_heads or heads,
            head_dim=config.head_dim or config.hidden_size // heads,
            vocabulary=config.vocab_size,
        )

    @property
    def layer_parameters(self) -> int:
        """Weights of the matrices of a layer."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.key_value_heads)
        return attention + 3 * self.hidden * self.intermediate


@dataclass(frozen=True)
class Sizes:
    """Tokens of one example: `text` of the prompt (images too), each of the `frames`, `canvas`, `suffix`."""

    text: int
    frames: tuple[int, ...]
    canvas: int
    suffix: int = 0

    @classmethod
    def of(cls, layout: SequenceLayout, example: int) -> "Sizes":
        """Of one example of a layout, without its padding."""
        index, canvas = layout.frame_index[example].cpu(), layout.canvas
        visual = index[index >= 0]
        frames = tuple((visual == frame).sum().item() for frame in visual.unique())
        mask = layout.attention_mask
        total = len(index) if mask is None else int(mask[example].sum())
        behind_prompt = len(index) - canvas.start
        text = total - behind_prompt - sum(frames)
        return cls(text, frames, canvas.stop - canvas.start, len(index) - canvas.stop)

    @property
    def visual(self) -> int:
        """Tokens of all frames."""
        return sum(self.frames)

    @property
    def prompt(self) -> int:
        """Tokens before the canvas."""
        return self.text + self.visual

    @property
    def total(self) -> int:
        """All tokens."""
        return self.prompt + self.canvas + self.suffix

    def layout(self) -> SequenceLayout:
        """A batch of this one example: text, frames, canvas, suffix."""
        numbers = torch.repeat_interleave(torch.arange(len(self.frames)), torch.tensor(self.frames, dtype=torch.long))
        text, behind_prompt = torch.full((self.text,), -1), torch.full((self.canvas + self.suffix,), -1)
        canvas = slice(self.prompt, self.prompt + self.canvas)
        frame_index = torch.cat([text, numbers, behind_prompt])[None]
        return SequenceLayout(torch.arange(self.total)[None], None, frame_index, canvas)

    def steps_in_sequence(self, steps: Sequence[DenoisingStep]) -> list[DenoisingStep]:
        """`VidLaDAGenerationConfig.planned_steps()` with spans counted from the beginning of the sequence."""
        return [replace(step, span=shift(step.span, self.prompt)) for step in steps]


@dataclass(frozen=True)
class LayerWork:
    """What one layer does in one step.

    Args:
        tokens: how many it computes.
        pairs: of a query and a key that it attends to.
        extra: operations besides, such as a search.
    """

    tokens: int
    pairs: int
    extra: int = 0

    def flops(self, shape: TextShape) -> int:
        """Operations of the layer."""
        return 2 * shape.layer_parameters * self.tokens + 4 * shape.heads * shape.head_dim * self.pairs + self.extra


@singledispatch
def plan_work(
    strategy: Any, shape: TextShape, sizes: Sizes, steps: Sequence[DenoisingStep], refreshed: Sequence[Any] = ()
) -> list[list[LayerWork]] | None:
    """What each layer does in each step, for one example.

    Args:
        strategy: of a known class, or of a subclass of `SelectiveKVCache` that only writes `recompute_span`.
        steps: those in which the example is active, numbered by its own clock, spans from the sequence's beginning.
        refreshed: of MARS-Cache, the example's `RefreshPlan` in each step, where it ran; without it the schedule's.

    Returns:
        For each step a list over layers; None for a strategy that is not known.
    """
    return None


@plan_work.register
def _(
    strategy: NoCache, shape: TextShape, sizes: Sizes, steps: Sequence[DenoisingStep], refreshed: Sequence[Any] = ()
) -> Any:
    works = []
    for step in steps:
        shadow = shadow_tokens(step)
        work = LayerWork(sizes.total + shadow, sizes.total**2 + shadow * (sizes.total + shadow))
        works.append([work] * shape.layers)
    return works


@plan_work.register
def _(
    strategy: SelectiveKVCache,
    shape: TextShape,
    sizes: Sizes,
    steps: Sequence[DenoisingStep],
    refreshed: Sequence[Any] = (),
) -> Any:
    total, works = sizes.total, []
    for step in steps:
        tokens = len(range(*strategy.recompute_span(step).indices(total))) if step.index else total
        works.append([LayerWork(tokens, tokens * total)] * shape.layers)
    return works


@plan_work.register
def _(
    strategy: DLLMCache, shape: TextShape, sizes: Sizes, steps: Sequence[DenoisingStep], refreshed: Sequence[Any] = ()
) -> Any:
    answer, schedule, works = sizes.canvas + sizes.suffix, strategy.schedule(steps), []
    picked = int(strategy.transfer_ratio * answer)
    values = 2 * shape.hidden * shape.key_value_heads * shape.head_dim * answer  # of all tokens that it may pick
    for i in range(len(steps)):
        has_prompt, has_answer = bool(schedule["prompt"][i, 0]), bool(schedule["answer"][i, 0])
        tokens = sizes.prompt * has_prompt + (answer if has_answer else picked)
        extra = values if strategy.transfer_ratio and not has_answer else 0
        works.append([LayerWork(tokens, tokens * sizes.total, extra)] * shape.layers)
    return works


@plan_work.register
def _(
    strategy: MARSCache, shape: TextShape, sizes: Sizes, steps: Sequence[DenoisingStep], refreshed: Sequence[Any] = ()
) -> Any:
    config, groups = strategy.config, strategy.config.groups
    schedule = strategy.schedule(steps)
    works = []
    for i, step in enumerate(steps):
        block = step.span.stop - step.span.start
        before = steps[i - 1].span if i and steps[i - 1].span != step.span else slice(0, 0)
        always = block + before.stop - before.start
        full = step.index == 0 and config.first_step == "full"
        layers: list[LayerWork] = []
        for group in range(groups):
            if refreshed:
                visual, text = refreshed[i].visual <= group, refreshed[i].text <= group
            else:
                visual, text = bool(schedule["visual"][i, group]), bool(schedule["text"][i, group])
            work = _mars_layer(config, sizes, always, visual, text, full)
            layers += [work] * ((group + 1) * shape.layers // groups - group * shape.layers // groups)
        works.append(layers)
    _add_anchor_search(works[0], config, shape, sizes)
    return works


def _mars_layer(config: MARSCacheConfig, sizes: Sizes, always: int, visual: bool, text: bool, full: bool) -> LayerWork:
    """A layer that refreshes visual tokens, text tokens, both or none, besides those that are always computed."""
    total, others = sizes.total, sizes.total - sizes.visual
    tokens = others if text else always
    if not visual:
        return LayerWork(tokens, tokens * total)
    width = config.neighborhood
    if full or width is None or len(sizes.frames) <= width + 1:
        return LayerWork(tokens + sizes.visual, (tokens + sizes.visual) * total)
    pairs = 0
    for frame, queries in enumerate(sizes.frames):
        near = sizes.frames[max(frame - width, 0) : frame + width + 1]
        pairs += queries * (sum(near) + config.anchors * (len(sizes.frames) - len(near)) + others)
    return LayerWork(tokens + sizes.visual, tokens * total + pairs)


def _add_anchor_search(layers: list[LayerWork], config: MARSCacheConfig, shape: TextShape, sizes: Sizes) -> None:
    """Adds the proxy attention maps of the anchor search to the layers of the first step."""
    width = config.neighborhood
    if width is None or len(sizes.frames) <= width + 1 or not config.anchors or config.anchor_choice != "attention":
        return
    proxy_layers = config.proxy_layers or (shape.layers // 2,)
    searched = set(proxy_layers) | (set() if config.first_step == "full" else set(range(min(proxy_layers))))
    proxies = len(evenly_spaced(sizes.visual, config.proxy_queries))
    for i in searched:
        layers[i] = replace(layers[i], extra=2 * proxies * sizes.total * shape.heads * shape.head_dim)


@dataclass(frozen=True)
class Machine:
    """How fast a device is: operations a second in large matrix products, bytes a second in large copies."""

    flops: float
    bytes: float


@dataclass(frozen=True)
class StepCost:
    """Operations of one step, and bytes that it must read at least."""

    flops: int
    bytes: int

    def floor(self, machine: Machine) -> float:
        """Seconds that it takes at least."""
        return max(self.flops / machine.flops, self.bytes / machine.bytes)


def shift(span: slice, by: int) -> slice:
    """The span so many positions further on."""
    return slice(span.start + by, span.stop + by)


def shadow_tokens(step: DenoisingStep) -> int:
    """Masks that a step computes beside the sequence."""
    return step.span.stop - step.span.start if step.shadow else 0


def cost_of_steps(
    strategy: DenoisingCache,
    shape: TextShape,
    layout: SequenceLayout,
    steps: Sequence[DenoisingStep],
    element_size: int = 4,
) -> list[StepCost] | None:
    """What each step of a `generate` costs.

    Args:
        strategy: as it is after the run, or before it for what is planned.
        layout: of the batch, each branch of guidance an example of its own.
        steps: as they ran, or as planned, with spans from the sequence's beginning.
        element_size: bytes of a weight and of a stored key.

    Returns:
        A cost a step, summed over the examples; None for a strategy that `plan_work` does not know.
    """
    batch, length = layout.frame_index.shape
    predicted = [s.span.stop - s.span.start + shadow_tokens(s) for s in steps]
    flops = [2 * shape.hidden * shape.vocabulary * tokens * batch for tokens in predicted]  # the head
    weights = shape.layers * shape.layer_parameters + shape.hidden * shape.vocabulary
    stored = 0
    for example in range(batch):
        sizes = Sizes.of(layout, example)
        if not isinstance(strategy, SelectiveKVCache):  # computes padding too
            sizes = replace(sizes, text=sizes.text + length - sizes.total)
        padding = length - sizes.total
        active = [i for i, step in enumerate(steps) if not step.active or step.active[example]]
        own = [replace(steps[i], index=clock, span=shift(steps[i].span, -padding)) for clock, i in enumerate(active)]
        ran = getattr(strategy, "refreshed", [])
        refreshed = [ran[i][example] for i in active] if len(ran) == len(steps) else []
        works = plan_work(strategy, shape, sizes, own, refreshed) if own else []
        if works is None:
            return None
        for i, layers in zip(active, works, strict=True):
            flops[i] += sum(work.flops(shape) for work in layers)
        stored += 2 * shape.layers * shape.key_value_heads * shape.head_dim * sizes.total
    return [StepCost(f, element_size * (weights + stored)) for f in flops]


__all__ = ["LayerWork", "Machine", "Sizes", "StepCost", "TextShape", "cost_of_steps", "plan_work"]
