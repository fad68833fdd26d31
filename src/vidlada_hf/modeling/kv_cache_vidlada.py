"""Strategies that keep the keys and values of all tokens and say which span of the sequence a step recomputes.

The tokens of a batch that are not padded are packed: numbered through, example after example, and only these are ever
computed or stored. So there is no attention mask: the keys of an example are one stretch of the store, whatever its
length. Index arithmetic is done on the CPU and its results are kept, so that a step on a GPU does not wait for it.
A step of `SelectiveKVCache` is planned, see `PlannedCache`: `select_tokens` says which tokens, `compute` runs them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .arguments_vidlada import check_interval
from .cache_vidlada import DenoisingStep, PlannedCache, SequenceLayout, StepPlan, upload
from .shared_attention_vidlada import attend_with_shared


@dataclass(frozen=True)
class ComputedTokens:
    """Tokens that are computed together.

    Args:
        indices: (tokens,), int64, in the packed layout. First `num_framewise` tokens whose attention is not to
            everything (see `MARSCache`), then the others, example after example.
        slots: (tokens,), int64, where each is stored: at its index; or, of examples that have finished and are computed
            along, behind all tokens, where nobody reads it.
        counts: how many of the others are each example's.
        block: (tokens of the block in the examples that are computed,), int64, where they stand among these tokens.
        num_framewise: how many tokens come first.
    """

    indices: torch.Tensor
    slots: torch.Tensor
    counts: tuple[int, ...]
    block: torch.Tensor
    num_framewise: int = 0


@dataclass(frozen=True, kw_only=True)
class TokenPlan(StepPlan):
    """The tokens that each group of layers computes in a step, shallow first; one for all layers: no groups."""

    groups: tuple[ComputedTokens, ...]


class PackedLayout:
    """Numbers the tokens of a layout that are not padded.

    Args:
        layout: of batch x positions.

    Attributes:
        is_token, is_visual: (batch, positions), bool, on the CPU: not padded; not padded and of a frame.
        indices: (batch, positions), int64, on the CPU. Meaningless where padded.
        lengths, offsets: tokens of each example, and the index of its first.
        flat_positions: (tokens,), int64, where each token stands in a flattened (batch, positions).
        position_ids: (tokens,), int64.
    """

    def __init__(self, layout: SequenceLayout) -> None:
        frames, mask = layout.frame_index.cpu(), layout.attention_mask
        self.is_token = torch.ones_like(frames, dtype=torch.bool) if mask is None else mask.cpu()
        self.is_visual = self.is_token & (frames >= 0)
        self.indices = (self.is_token.flatten().cumsum(0) - 1).view_as(frames)
        self.lengths: list[int] = self.is_token.sum(-1).tolist()
        self.offsets = [sum(self.lengths[:i]) for i in range(len(self.lengths))]
        self.flat_positions = self.is_token.flatten().nonzero()[:, 0].to(layout.position_ids.device)
        self.position_ids = layout.position_ids.flatten()[self.flat_positions]

    def mark(self, span: slice, examples: Sequence[bool]) -> torch.Tensor:
        """(batch, positions), bool, on the CPU: the tokens of this span in these examples."""
        marked = torch.zeros_like(self.is_token)
        marked[:, span] = (self.is_token & torch.tensor(examples)[:, None])[:, span]
        return marked

    def select(
        self,
        marked: torch.Tensor,
        step: DenoisingStep,
        framewise: torch.Tensor | None = None,
        with_finished: bool = False,
    ) -> ComputedTokens:
        """The tokens of a mask (batch, positions), which must hold the block of all active examples.

        Args:
            framewise: (tokens,), int64, on the CPU, indices of the tokens that come first.
            with_finished: the mask also holds the block of examples that are not active.

        Raises:
            ValueError: tokens of the block are missing.
        """
        active = torch.tensor(self.active(step))
        block = self.mark(step.span, (True,) * len(active) if with_finished else self.active(step))
        if not marked[block].all():
            raise ValueError(
                f"A cache strategy must recompute the block's positions {step.span.start} to {step.span.stop} in every "
                "step, and leaves some of them out."
            )
        first = self.indices.new_empty(0) if framewise is None else framewise
        slots = torch.where(active[:, None], self.indices, len(self.flat_positions))[marked]
        offsets = (marked.flatten().cumsum(0) - 1 + len(first)).view_as(marked)
        return ComputedTokens(
            indices=self.upload(torch.cat([first, self.indices[marked]])),
            slots=self.upload(torch.cat([first, slots])),
            counts=tuple(marked.sum(-1).tolist()),
            block=self.upload(offsets[block]),
            num_framewise=len(first),
        )

    def upload(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor of the CPU where the layout is."""
        return upload(tensor, self.flat_positions.device)

    def active(self, step: DenoisingStep) -> tuple[bool, ...]:
        """Of each example, whether it has something to commit."""
        return step.active or (True,) * len(self.lengths)


class SelectiveKVCache(PlannedCache):
    """Keeps the rotated keys and the values of all tokens; a step recomputes a span and attends to everything kept.

    A subclass writes `recompute_span`. Keys are stored after RoPE (Fast-dLLM stores them before, and rotates all of
    them again in every layer and step). An example's first step computes all of its tokens, whatever the span, and
    examples with nothing to commit are left alone: each gets what it gets alone.
    """

    def recompute_span(self, step: DenoisingStep) -> slice:
        """The positions to recompute in this step, the block's among them. Here: all."""
        return slice(None)

    def begin(self, layout: SequenceLayout) -> None:
        super().begin(layout)
        self.packed = PackedLayout(layout)
        self.steps_done = [0] * len(self.packed.lengths)
        # (tokens + 1, heads, head_dim) a layer; the last is for what nobody reads.
        self.keys: dict[int, torch.Tensor] = {}
        self.values: dict[int, torch.Tensor] = {}
        self._rotary: tuple[torch.Tensor, torch.Tensor] | None = None  # (1, tokens, head_dim) each
        self._selections: dict[Any, Any] = {}  # what determines a step's tokens -> these

    def end(self) -> None:
        super().end()
        self.keys, self.values, self._rotary, self._selections = {}, {}, None, {}

    def plan(self, step: DenoisingStep) -> TokenPlan:
        """The tokens of `select_tokens`. Steps that recompute everything are too large to gain from being captured."""
        computed, repeats = self.select_tokens(step), self.is_partial(step)
        return self.finish_plan(step, (computed,), repeats, with_finished=repeats and self.keeps_shape)

    def finish_plan(
        self, step: DenoisingStep, groups: tuple[ComputedTokens, ...], repeats: bool, with_finished: bool
    ) -> TokenPlan:
        """The plan of a step that computes these tokens; counts the step."""
        active = self.packed.active(step)
        examples = None
        if not all(active) and not with_finished:
            if active not in self._selections:
                self._selections[active] = self.packed.upload(torch.tensor(active).nonzero()[:, 0])
            examples = self._selections[active]
        self.steps_done = [done + a for done, a in zip(self.steps_done, active, strict=True)]
        return TokenPlan(len(active), examples, repeats, groups=groups)

    def is_partial(self, step: DenoisingStep) -> bool:
        """Whether a part of the sequence is recomputed, the same of each example: no example is new."""
        return not any(self.new_examples(step)) and self.recompute_span(step) != slice(None)

    def new_examples(self, step: DenoisingStep) -> tuple[bool, ...]:
        """Of each example, whether this is its first step."""
        return tuple(a and not done for a, done in zip(self.packed.active(step), self.steps_done, strict=True))

    def run(self, text_model: nn.Module, inputs_embeds: torch.Tensor, plan: TokenPlan) -> torch.Tensor:
        """Recomputes the tokens of the plan, through all layers."""
        (computed,) = plan.groups
        hidden_states = self.compute(text_model, self.embeddings(inputs_embeds, computed), computed)
        return self.read_block(hidden_states, computed, plan)

    def select_tokens(self, step: DenoisingStep) -> ComputedTokens:
        """The tokens of `recompute_span`, and all tokens of examples whose first step this is."""
        active, span, new = self.packed.active(step), self.recompute_span(step), self.new_examples(step)
        kept = self.keeps_shape and self.is_partial(step)
        key = (span.start, span.stop, step.span.start, step.span.stop, active, new, kept)
        if key not in self._selections:
            computed = (True,) * len(active) if kept else active
            marked = self.packed.mark(span, computed) | self.packed.mark(slice(None), new)
            self._selections[key] = self.packed.select(marked, step, with_finished=kept)
        return self._selections[key]

    def embeddings(self, inputs_embeds: torch.Tensor, computed: ComputedTokens) -> torch.Tensor:
        """(batch, positions, hidden) -> (tokens, hidden), of these tokens."""
        return inputs_embeds.flatten(0, 1)[self.packed.flat_positions[computed.indices]]

    def compute(
        self, text_model: Any, hidden_states: torch.Tensor, computed: ComputedTokens, layers: range | None = None
    ) -> torch.Tensor:
        """Runs tokens through layers, storing their keys and values.

        Args:
            hidden_states: (tokens, hidden), what enters the first of the layers.
            layers: all by default.

        Returns:
            (tokens, hidden).
        """
        positions = self.packed.position_ids
        if self._rotary is None:
            self._rotary = text_model.rotary_emb(hidden_states[None], positions[None])
        return text_model(
            inputs_embeds=hidden_states[None],
            position_ids=positions[computed.indices][None],
            position_embeddings=tuple(table[:, computed.indices] for table in self._rotary),
            layers=layers,
            denoising_cache=self,
            computed=computed,
        ).last_hidden_state[0]

    def read_block(self, hidden_states: torch.Tensor, computed: ComputedTokens, plan: TokenPlan) -> torch.Tensor:
        """(tokens, hidden) -> (batch, block, hidden), 0 for examples that are not computed."""
        examples = plan.batch if plan.examples is None else len(plan.examples)
        block = hidden_states[computed.block.to(hidden_states.device)].unflatten(0, (examples, -1))
        return plan.spread(block)

    def attend(  # type: ignore[override]  # `computed` is always passed
        self,
        attention: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *,
        computed: ComputedTokens,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Stores the keys and values of the computed tokens (in a batch of one) and attends to everything stored."""
        keys, values = self.store(attention.layer_idx, key, value, computed)
        return self.attend_to_all(attention, query, keys, values, computed, **kwargs)

    def store(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, computed: ComputedTokens
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes the computed tokens in place.

        Args:
            key, value: (1, heads, computed tokens, head_dim).

        Returns:
            The keys and values of all tokens, (tokens, heads, head_dim) each.
        """
        for kept, fresh in ((self.keys, key), (self.values, value)):
            if layer not in kept:
                kept[layer] = fresh.new_zeros(len(self.packed.flat_positions) + 1, fresh.shape[1], fresh.shape[3])
            kept[layer].index_copy_(0, computed.slots.to(fresh.device), fresh[0].transpose(0, 1))
        return self.keys[layer][:-1], self.values[layer][:-1]

    def attend_to_all(
        self,
        attention: Any,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        computed: ComputedTokens,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Each example's tokens to all of its keys: one call where all examples are alike, else one an example.

        Args:
            query: (1, heads, tokens, head_dim), of the computed tokens that attend to everything.
            keys, values: (all tokens, heads, head_dim).

        Returns:
            (1, tokens, heads, head_dim).
        """
        groups = self._alike(query, keys, values, computed)
        shared = self.shared_keys(attention)
        if shared is not None:
            return attend_with_shared(attention, groups, shared).flatten(0, 1)[None]
        parts = [attention.attend(*group, None, **kwargs)[0].flatten(0, 1) for group in groups]
        return (parts[0] if len(parts) == 1 else torch.cat(parts))[None]

    def _alike(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, computed: ComputedTokens
    ) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Query, key and value, (examples, heads, tokens, head_dim) each, of examples that one call can serve."""
        counts, lengths = computed.counts, self.packed.lengths
        if len(set(counts)) == len(set(lengths)) == 1:
            fold = (len(counts), -1)
            key, value = (kept.unflatten(0, fold).transpose(1, 2) for kept in (keys, values))
            return [(query[0].unflatten(1, fold).transpose(0, 1), key, value)]
        groups = []
        for queries, start, length in zip(query.split(list(counts), dim=2), self.packed.offsets, lengths, strict=True):
            if queries.shape[2]:
                key, value = (kept[None, start : start + length].transpose(1, 2) for kept in (keys, values))
                groups.append((queries, key, value))
        return groups

    def schedule(self, steps: Sequence[DenoisingStep]) -> dict[str, torch.Tensor] | None:
        """Refreshed is whatever is recomputed as a whole."""
        whole = [[step.index == 0 or self.recompute_span(step) == slice(None)] for step in steps]
        return {"visual": torch.tensor(whole), "text": torch.tensor(whole)}


class PrefixCache(SelectiveKVCache):
    """Named "prefix" (Fast-dLLM, arXiv 2505.22618): a block's first step recomputes everything, the others the block
    and all behind it.

    Args:
        refresh_interval: recompute everything again every so many steps of a block; None: only in its first.
    """

    captures = True

    def __init__(self, refresh_interval: int | None = None) -> None:
        self.refresh_interval = check_interval("refresh_interval", refresh_interval)

    def is_refreshed(self, step: DenoisingStep) -> bool:
        """Whether this step recomputes everything."""
        interval = self.refresh_interval
        return step.step_in_block == 0 or (interval is not None and step.step_in_block % interval == 0)

    def recompute_span(self, step: DenoisingStep) -> slice:
        """Everything, or the block and all behind it."""
        return slice(None) if self.is_refreshed(step) else slice(step.span.start, None)


class DualCache(PrefixCache):
    """Named "dual" (Fast-dLLM): a block's first step recomputes everything, the others only the block.

    Args:
        refresh_interval: as for `PrefixCache`.
    """

    captures = True

    def recompute_span(self, step: DenoisingStep) -> slice:
        """Everything, or the block."""
        return slice(None) if self.is_refreshed(step) else step.span


__all__ = ["ComputedTokens", "DualCache", "PackedLayout", "PrefixCache", "SelectiveKVCache", "TokenPlan"]
