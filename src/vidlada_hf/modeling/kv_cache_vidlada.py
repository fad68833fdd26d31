"""Strategies that keep the keys and values of all rows and say which columns a step recomputes.

The rows of a batch that are not padded are numbered through, example after example, and only these are ever computed or
stored. So there is no attention mask: the keys of an example are one stretch of the store, whatever its length. Index
arithmetic is done on the CPU and its results are kept, so that a step on a GPU does not wait for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .cache_vidlada import DenoisingCache, DenoisingStep, SequenceLayout


@dataclass(frozen=True)
class ComputedTokens:
    """Rows that are computed together.

    Args:
        numbers: (rows,), int64, which ones. First `framed` rows whose attention is not to everything (see `MARSCache`),
            then the others, example after example.
        counts: how many of the others are each example's.
        block: (rows of the block in the examples that are active,), int64, their places among these rows.
        framed: how many rows come first.
    """

    numbers: torch.Tensor
    counts: tuple[int, ...]
    block: torch.Tensor
    framed: int = 0


class PackedLayout:
    """Numbers the rows of a layout that are not padded.

    Args:
        layout: of batch x columns.

    Attributes:
        real, visual: (batch, columns), bool, on the CPU: not padded; not padded and of a frame.
        numbers: (batch, columns), int64, on the CPU. Meaningless where padded.
        lengths, starts: of each example's stretch of numbers.
        places: (rows,), int64, the place of each row in a flattened (batch, columns).
        position_ids: (rows,), int64.
    """

    def __init__(self, layout: SequenceLayout) -> None:
        frames, mask = layout.frame_index.cpu(), layout.attention_mask
        self.real = torch.ones_like(frames, dtype=torch.bool) if mask is None else mask.cpu()
        self.visual = self.real & (frames >= 0)
        self.numbers = (self.real.flatten().cumsum(0) - 1).view_as(frames)
        self.lengths: list[int] = self.real.sum(-1).tolist()
        self.starts = [sum(self.lengths[:i]) for i in range(len(self.lengths))]
        self.places = self.real.flatten().nonzero()[:, 0].to(layout.position_ids.device)
        self.position_ids = layout.position_ids.flatten()[self.places]

    def marked(self, columns: slice, examples: Sequence[bool]) -> torch.Tensor:
        """(batch, columns), bool, on the CPU: the rows of these columns and examples that are not padded."""
        marked = torch.zeros_like(self.real)
        marked[:, columns] = (self.real & torch.tensor(examples)[:, None])[:, columns]
        return marked

    def rows(self, marked: torch.Tensor, step: DenoisingStep, framed: torch.Tensor | None = None) -> ComputedTokens:
        """The rows of a mask (batch, columns), which must hold the block of all active examples.

        Args:
            framed: (rows,), int64, on the CPU, numbers of the rows that come first.

        Raises:
            ValueError: rows of the block are missing.
        """
        block = self.marked(step.span, self.active(step))
        if not marked[block].all():
            raise ValueError(
                f"A cache strategy must recompute the block's columns {step.span.start} to {step.span.stop} in every "
                "step, and leaves some of them out."
            )
        numbers, first = self.numbers[marked], 0 if framed is None else len(framed)
        places = (marked.flatten().cumsum(0) - 1 + first).view_as(marked)
        numbers = numbers if framed is None else torch.cat([framed, numbers])
        device = self.places.device
        return ComputedTokens(numbers.to(device), tuple(marked.sum(-1).tolist()), places[block].to(device), first)

    def active(self, step: DenoisingStep) -> tuple[bool, ...]:
        """Of each example, whether it has something to commit."""
        return step.active or (True,) * len(self.lengths)


class SelectiveKVCache(DenoisingCache):
    """Keeps the rotated keys and the values of all rows; a step recomputes the rows of `columns` and attends to all.

    A subclass writes `columns`. Keys are stored after RoPE (Fast-dLLM stores them before, and rotates all of them again
    in every layer and step). An example's first step computes all of its rows, whatever `columns` says, and examples
    with nothing to commit are left alone: each gets what it gets alone.
    """

    def recompute_span(self, step: DenoisingStep) -> slice:
        """The columns to recompute in this step, the block's among them. Here: all."""
        return slice(None)

    def begin(self, layout: SequenceLayout) -> None:
        """See `DenoisingCache.begin`."""
        super().begin(layout)
        self.numbers = PackedLayout(layout)
        self.steps_done = [0] * len(self.numbers.lengths)
        self.keys: dict[int, torch.Tensor] = {}
        self.values: dict[int, torch.Tensor] = {}
        self._kept_rows: dict[Any, ComputedTokens] = {}

    def end(self) -> None:
        """See `DenoisingCache.end`."""
        super().end()
        self.keys, self.values, self._kept_rows = {}, {}, {}

    def denoise(self, text_model: nn.Module, inputs_embeds: torch.Tensor, step: DenoisingStep) -> torch.Tensor:
        """Recomputes the rows of `columns`."""
        active, columns = self.numbers.active(step), self.recompute_span(step)
        new = tuple(a and not done for a, done in zip(active, self.steps_done, strict=True))
        key = (columns.start, columns.stop, step.span.start, step.span.stop, active, new)
        if key not in self._kept_rows:
            marked = self.numbers.marked(columns, active) | self.numbers.marked(slice(None), new)
            self._kept_rows[key] = self.numbers.rows(marked, step)
        rows = self._kept_rows[key]
        hidden_states = self.compute(text_model, self.embeddings(inputs_embeds, rows), rows)
        return self.finish_step(hidden_states, rows, step)

    def embeddings(self, inputs_embeds: torch.Tensor, rows: ComputedTokens) -> torch.Tensor:
        """(batch, columns, hidden) -> (rows, hidden), of these rows."""
        return inputs_embeds.flatten(0, 1)[self.numbers.places[rows.numbers]]

    def compute(
        self, text_model: nn.Module, hidden_states: torch.Tensor, rows: ComputedTokens, layers: range | None = None
    ) -> torch.Tensor:
        """Runs rows through layers, storing their keys and values.

        Args:
            hidden_states: (rows, hidden), what enters the first of the layers.
            layers: all by default.

        Returns:
            (rows, hidden).
        """
        self.computed = rows
        return text_model(
            inputs_embeds=hidden_states[None],
            position_ids=self.numbers.position_ids[rows.numbers][None],
            layers=layers,
            denoising_cache=self,
        ).last_hidden_state[0]

    def finish_step(self, hidden_states: torch.Tensor, rows: ComputedTokens, step: DenoisingStep) -> torch.Tensor:
        """(rows, hidden) -> (batch, block, hidden), 0 for examples that are not active; counts the step."""
        active = self.numbers.active(step)
        self.steps_done = [done + a for done, a in zip(self.steps_done, active, strict=True)]
        block = hidden_states[rows.block.to(hidden_states.device)].unflatten(0, (sum(active), -1))
        if all(active):
            return block
        places = torch.tensor(active).nonzero()[:, 0].to(block.device)
        return block.new_zeros(len(active), *block.shape[1:]).index_copy(0, places, block)

    def attend(
        self,
        attention: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Stores the keys and values of the computed rows (in a batch of one) and attends to everything stored."""
        keys, values = self.store(attention.layer_idx, key, value)
        return self.attend_to_all(attention, query, keys, values, **kwargs)

    def store(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes the computed rows in place.

        Args:
            key, value: (1, heads, computed rows, head_dim).

        Returns:
            The keys and values of all rows, (rows, heads, head_dim) each.
        """
        for kept, fresh in ((self.keys, key), (self.values, value)):
            if layer not in kept:
                kept[layer] = fresh.new_zeros(len(self.numbers.places), fresh.shape[1], fresh.shape[3])
            kept[layer].index_copy_(0, self.computed.numbers.to(fresh.device), fresh[0].transpose(0, 1))
        return self.keys[layer], self.values[layer]

    def attend_to_all(
        self, attention: Any, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, **kwargs: Any
    ) -> torch.Tensor:
        """Each example's rows to all of its keys: one call where all examples are alike, else one an example.

        Args:
            query: (1, heads, rows, head_dim), of the computed rows that attend to everything.
            keys, values: (all rows, heads, head_dim).

        Returns:
            (1, rows, heads, head_dim).
        """
        counts, lengths = self.computed.counts, self.numbers.lengths
        if len(set(counts)) == len(set(lengths)) == 1:
            fold = (len(counts), -1)
            queries = query[0].unflatten(1, fold).transpose(0, 1)
            key, value = (kept.unflatten(0, fold).transpose(1, 2) for kept in (keys, values))
            return attention.attend(queries, key, value, None, **kwargs)[0].flatten(0, 1)[None]
        parts = []
        for queries, start, length in zip(query.split(list(counts), dim=2), self.numbers.starts, lengths, strict=True):
            if queries.shape[2]:
                key, value = (kept[None, start : start + length].transpose(1, 2) for kept in (keys, values))
                parts.append(attention.attend(queries, key, value, None, **kwargs)[0])
        return torch.cat(parts, dim=1)

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

    def recompute_span(self, step: DenoisingStep) -> slice:
        """Everything, or the block."""
        return slice(None) if self.is_refreshed(step) else step.span


def check_interval(name: str, value: Any) -> Any:
    """A number of steps, or None; anything else is a ValueError that names it."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ValueError(f"`{name}` must be a whole number of steps of at least 1, or None for never, got {value!r}.")
    return value


__all__ = ["DualCache", "PrefixCache", "SelectiveKVCache", "PackedLayout", "ComputedTokens"]
