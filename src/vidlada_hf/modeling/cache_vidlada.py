"""What a denoising step recomputes: the strategy interface, and the exact strategy that recomputes everything.

A strategy is one object with one method to write, `denoise`. It is handed the whole sequence and returns the hidden
states of the block; how much of the rest it recomputes, and at which depth, is its own decision.
`VidLaDATextModel.forward` helps with `position_ids` (which tokens), `layers` (which depth) and `denoising_cache` (whose
`run_layer` and `attend` see what enters every layer and its attention). `SelectiveKVCache` (`kv_cache_vidlada`) keeps
the keys and values of all tokens, so that a strategy built on it only says which span a step recomputes.

A `PlannedCache` decides on the host what a step does, before the device gets any work. The strategies with a name are
planned: their steps wait for nothing on a GPU, and can be captured (`cuda_graphs_vidlada`).
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from transformers.masking_utils import create_bidirectional_mask

from .shared_attention_vidlada import attend_masked, attend_with_shared


def count_positions(attention_mask: torch.Tensor) -> torch.Tensor:
    """Position ids (batch, tokens), int64, counted over the tokens that are not padded: a padded example keeps its
    own."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


@dataclass(frozen=True)
class SequenceLayout:
    """Where everything stands in the sequences of one `generate`, at the same positions for all examples (left
    padding).

    Args:
        position_ids: (batch, positions), int64, counted in each example without its padding.
        attention_mask: (batch, positions), bool, False where padded; None when nothing is.
        frame_index: (batch, positions), int64, the frame that a visual token shows, -1 for text, images, canvas and
            suffix.
        canvas: the answer being denoised. Tokens behind it are a fixed suffix.
        shared: a `VideoCache`, whose keys and values all examples attend to besides; None: there are none. Position
            ids go on behind it.
    """

    position_ids: torch.Tensor
    attention_mask: torch.Tensor | None
    frame_index: torch.Tensor
    canvas: slice
    shared: Any = None

    def repeat(self, times: int) -> "SequenceLayout":
        """The layout of this batch repeated so many times (classifier-free guidance runs two branches)."""
        if times == 1:
            return self
        mask = None if self.attention_mask is None else self.attention_mask.repeat(times, 1)
        return SequenceLayout(
            self.position_ids.repeat(times, 1), mask, self.frame_index.repeat(times, 1), self.canvas, self.shared
        )


@dataclass(frozen=True)
class DenoisingStep:
    """Which step of the denoising this is.

    Args:
        index: steps done before, over all blocks.
        block: number of the block being denoised, from 0.
        step_in_block: steps done before in this block.
        span: the block's positions in the sequence, whose hidden states the step wants.
        active: for each example, whether it has something to commit; empty: all have. What is returned for the others
            is not looked at. A strategy that leaves them alone, and counts an example's own steps, gives each example
            of a batch what it gets alone.
        shadow: whether the step also wants the block's shadow. As many masks as the block is long then stand behind the
            sequence, each at the position of a token of the block. Each sees the sequence without that token, and
            itself; nobody sees it. What it predicts is what the rest says of the token that stands there.
    """

    index: int
    block: int
    step_in_block: int
    span: slice
    active: tuple[bool, ...] = ()
    shadow: bool = False


class DenoisingCache(ABC):
    """Decides what each denoising step recomputes. One object serves one `generate` at a time.

    Attributes:
        computes_shadow: whether it serves steps that want a shadow. It holds for the very class that says so.
    """

    computes_shadow: ClassVar[bool] = False
    layout: SequenceLayout | None = None

    def check(self, text_config: Any, layout: SequenceLayout) -> None:  # noqa: B027  # most have nothing to check
        """Called before any work is done.

        Args:
            text_config: the `VidLaDATextConfig` of the text model that `denoise` will be handed.

        Raises:
            ValueError: this model or this layout cannot be served; the message names the setting to change.
        """

    def begin(self, layout: SequenceLayout) -> None:
        """Called once before the first step; what an earlier call stored is forgotten.

        Raises:
            RuntimeError: the object already serves another `generate`.
        """
        if self.layout is not None:
            raise RuntimeError(
                f"This {type(self).__name__} already serves a running `generate`. Give each call its own object, or "
                "the strategy's name."
            )
        self.layout = layout

    def end(self) -> None:
        """Called once after the last step, also after an error. Frees what was stored."""
        self.layout = None

    @abstractmethod
    def denoise(self, text_model: nn.Module, inputs_embeds: torch.Tensor, step: DenoisingStep) -> torch.Tensor:
        """The hidden states that the step predicts from.

        Args:
            text_model: the `VidLaDATextModel`.
            inputs_embeds: (batch, positions, hidden), the whole sequences as they stand now; behind them the masks of a
                shadow that the step wants.
            step: which step this is, and the span wanted.

        Returns:
            (batch, block, hidden), after the final norm; behind them the same of the shadow, if the step wants it.
        """

    def run_layer(
        self,
        layer: nn.Module,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Called for each layer that a strategy runs with `denoising_cache=self`. Here: the layer computes all tokens.

        Args:
            layer: the `VidLaDALayer`; `layer.self_attn.layer_idx` is its depth.
            hidden_states: (batch, computed tokens, hidden), what enters.
            position_embeddings: cosine and sine, (batch, computed tokens, head_dim) each.
            kwargs: what the strategy passed to the text model, handed on to `attend`.

        Returns:
            (batch, computed tokens, hidden), what leaves.
        """
        return layer(hidden_states, position_embeddings, attention_mask, denoising_cache=self, **kwargs)

    def attend(
        self,
        attention: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Called by the attention of each such layer: store, replace, and attend. Here: to the keys of the computed
        tokens, and to those that all examples share.

        Args:
            attention: the layer's `VidLaDAAttention`; `attention.layer_idx` is its depth, `attention.attend` the
                attention itself.
            query, key, value: (batch, heads, computed tokens, head_dim), already rotated.
            kwargs: what the strategy passed to the text model.

        Returns:
            (batch, computed tokens, heads, head_dim).
        """
        shared = self.shared_keys(attention)
        if shared is None:
            return attention.attend(query, key, value, attention_mask, **kwargs)[0]
        return attend_with_shared(attention, [(query, key, value)], shared, attention_mask)

    def shared_keys(self, attention: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Of a layer's `VidLaDAAttention`, the keys and values that all examples share; None: there are none."""
        if self.layout is None or self.layout.shared is None:
            return None
        return self.layout.shared.keys_of(attention.layer_idx)

    def schedule(self, steps: Sequence[DenoisingStep]) -> dict[str, torch.Tensor] | None:
        """What would be refreshed in these steps, without running anything.

        Args:
            steps: such as `VidLaDAGenerationConfig.planned_steps()` gives.

        Returns:
            For each kind of tokens, such as "visual" and "text", a bool tensor (steps, groups of layers, shallow
            first): whether the tokens of this kind outside the block are recomputed. None: the strategy decides as it
            goes.
        """
        return None


@contextmanager
def cache_session(cache: DenoisingCache, layout: SequenceLayout) -> Iterator[None]:
    """The time of one `generate`, from a strategy's `begin` to its `end`, which is called whatever goes wrong.

    One that already serves another call is not ended: that call still needs it.
    """
    was_busy = getattr(cache, "layout", None) is not None
    try:
        cache.begin(layout)
        yield
    finally:
        if not was_busy:
            cache.end()


@dataclass(frozen=True)
class StepPlan:
    """What a planned strategy does in one step.

    Two plans that differ only in the values of their tensors make the device do the same work: such steps share a
    captured graph.

    Args:
        batch: examples, of all branches.
        examples: (examples computed,), int64, on the model's device; None: all are.
        repeats: whether steps of this shape come again and again, so that capturing one pays.
    """

    batch: int
    examples: torch.Tensor | None
    repeats: bool

    def spread(self, block: torch.Tensor) -> torch.Tensor:
        """(examples computed, block, hidden) -> (batch, block, hidden), 0 for the others."""
        if self.examples is None:
            return block
        return block.new_zeros(self.batch, *block.shape[1:]).index_copy(0, self.examples.to(block.device), block)


class PlannedCache(DenoisingCache):
    """A strategy whose `denoise` is `plan`, on the host, and `run`, on the device.

    `run` reads the plan and what the object keeps on the device, and changes nothing but that.

    Attributes:
        captures: whether steps may be captured. It holds for the very class that says so: a subclass may keep state in
            Python that a replay would not see, so it has to say it again.
        keeps_shape: set by who captures. Where nothing but the block is computed, examples that have finished are then
            computed along, and what they would store is thrown away: the shape stays, and so does the result.
    """

    captures: ClassVar[bool] = False
    keeps_shape: bool = False

    @abstractmethod
    def plan(self, step: DenoisingStep) -> Any:
        """What the step does, a `StepPlan`; counts the step as done. Never waits for the device."""

    @abstractmethod
    def run(self, text_model: nn.Module, inputs_embeds: torch.Tensor, plan: Any) -> torch.Tensor:
        """The work of a plan: (batch, positions, hidden) -> (batch, block, hidden), see `denoise`."""

    def denoise(self, text_model: nn.Module, inputs_embeds: torch.Tensor, step: DenoisingStep) -> torch.Tensor:
        """Plans the step, and runs it."""
        return self.run(text_model, inputs_embeds, self.plan(step))


@dataclass(frozen=True, kw_only=True)
class SpanPlan(StepPlan):
    """A step that recomputes everything.

    Args:
        block: (block,), int64, the block's positions, on the model's device.
        shadow: whether the block's shadow is computed too.
    """

    block: torch.Tensor
    shadow: bool


class NoCache(PlannedCache):
    """Named "none": recomputes every token at every step. Exact, and the reference for all other strategies."""

    captures = True
    computes_shadow = True

    def plan(self, step: DenoisingStep) -> SpanPlan:
        """The active examples. A padded batch is not captured: transformers looks at its mask on the host; nor are
        steps with a shadow, of which a block has few."""
        assert self.layout is not None
        batch, device = len(self.layout.position_ids), self.layout.position_ids.device
        active = step.active or (True,) * batch
        examples = None if all(active) else upload(torch.tensor(active).nonzero()[:, 0], device)
        block = upload(torch.arange(step.span.start, step.span.stop), device)
        repeats = self.layout.attention_mask is None and not step.shadow
        return SpanPlan(batch, examples, repeats, block=block, shadow=step.shadow)

    def run(self, text_model: nn.Module, inputs_embeds: torch.Tensor, plan: SpanPlan) -> torch.Tensor:
        """Runs all tokens of the active examples through all layers; 0 for the others."""
        assert self.layout is not None
        mask, positions, chosen = self.layout.attention_mask, self.layout.position_ids, plan.examples
        if chosen is not None:
            inputs_embeds, positions = inputs_embeds[chosen.to(inputs_embeds.device)], positions[chosen]
            mask = None if mask is None else mask[chosen]
        if plan.shadow:
            hidden_states = self._run_with_shadow(text_model, inputs_embeds, mask, positions, plan.block)
        else:
            cache = None if self.layout.shared is None else self  # whose `attend` adds what all share
            outputs = text_model(
                inputs_embeds=inputs_embeds, attention_mask=mask, position_ids=positions, denoising_cache=cache
            )
            hidden_states = outputs.last_hidden_state
            hidden_states = hidden_states.index_select(1, plan.block.to(hidden_states.device))
        return plan.spread(hidden_states)

    def _run_with_shadow(
        self,
        text_model: Any,
        inputs_embeds: torch.Tensor,
        mask: torch.Tensor | None,
        positions: torch.Tensor,
        block: torch.Tensor,
    ) -> torch.Tensor:
        """(examples, positions + block, hidden) -> (examples, 2 x block, hidden), of the block and of its shadow."""
        assert self.layout is not None
        length, seen = positions.shape[1], shadow_mask(block, positions.shape[1], mask)
        if mask is not None and self.layout.shared is None:  # as the text model does where there is no strategy
            mask = create_bidirectional_mask(text_model.config, inputs_embeds[:, :length], mask)
        hidden_states = text_model(
            inputs_embeds=inputs_embeds,
            attention_mask=mask,
            position_ids=torch.cat([positions, positions[:, block]], dim=1),
            denoising_cache=self,
            shadow_mask=seen,
        ).last_hidden_state
        own = hidden_states.index_select(1, block.to(hidden_states.device))
        return torch.cat([own, hidden_states[:, length:]], dim=1)

    def attend(
        self,
        attention: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *,
        shadow_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The sequence as if there were no shadow, and the shadow under its own mask."""
        if shadow_mask is None:
            return super().attend(attention, query, key, value, attention_mask, **kwargs)
        length = query.shape[2] - shadow_mask.shape[2]
        own_query, own_key, own_value = (part[:, :, :length] for part in (query, key, value))
        attended = super().attend(attention, own_query, own_key, own_value, attention_mask, **kwargs)
        shared = self.shared_keys(attention)
        shadow = attend_masked(attention, query[:, :, length:], key, value, shadow_mask, shared)
        return torch.cat([attended, shadow], dim=1)

    def schedule(self, steps: Sequence[DenoisingStep]) -> dict[str, torch.Tensor]:
        """Everything, always."""
        return {kind: torch.ones(len(steps), 1, dtype=torch.bool) for kind in ("visual", "text")}


def shadow_mask(block: torch.Tensor, length: int, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """What the masks of a shadow see of the sequence, and of each other behind it.

    Args:
        block: (block,), int64, the positions whose shadow it is.
        length: of the sequence.
        attention_mask: (examples, length), bool, False where padded; None: nothing is.

    Returns:
        (examples or 1, 1, block, length + block), bool.
    """
    others = block[:, None] != torch.arange(length, device=block.device)
    sees = torch.cat([others, torch.eye(len(block), dtype=torch.bool, device=block.device)], dim=1)[None, None]
    return sees if attention_mask is None else sees & F.pad(attention_mask, (0, len(block)), value=True)[:, None, None]


# Held while a thread captures a CUDA graph, and by whoever does what must not happen meanwhile: free what graphs use,
# empty the allocator's cache, draw from a generator that a capture watches.
capturing = threading.RLock()


def upload(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU on a device; to a GPU from pinned memory, so that the host does not wait for it."""
    if device.type != "cuda" or tensor.device == device:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


__all__ = [
    "DenoisingCache",
    "DenoisingStep",
    "NoCache",
    "PlannedCache",
    "SequenceLayout",
    "StepPlan",
    "cache_session",
    "capturing",
    "count_positions",
    "upload",
]
