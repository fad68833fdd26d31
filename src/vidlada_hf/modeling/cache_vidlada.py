"""What a denoising step recomputes: the strategy interface, and the exact strategy that recomputes everything.

A strategy is one object with one method to write, `denoise`. It is handed all rows of the sequence and returns the
hidden states of the rows that the step wants to predict; how much of the rest it recomputes, and at which depth, is its
own decision. `VidLaDATextModel.forward` helps with `position_ids` (which rows), `layers` (which depth) and
`denoising_cache` (whose `attend` sees every layer's queries, keys and values). `SelectiveKVCache` (`kv_cache_vidlada`)
keeps the keys and values of all tokens, so that a strategy built on it only says which span a step recomputes.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


def count_positions(attention_mask: torch.Tensor) -> torch.Tensor:
    """Positions (batch, rows), int64, counted over the rows that are not padded: a padded example keeps its own."""
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


@dataclass(frozen=True)
class SequenceLayout:
    """Where everything stands in the sequences of one `generate`, the same columns for all examples (left padding).

    Args:
        position_ids: (batch, rows), int64, the place of each row in its own example.
        attention_mask: (batch, rows), bool, False where padded; None when nothing is.
        frame_index: (batch, rows), int64, the frame that a visual row shows, -1 for text, images, canvas and suffix.
        canvas: the columns of the answer being denoised. Rows behind it are a fixed suffix.
    """

    position_ids: torch.Tensor
    attention_mask: torch.Tensor | None
    frame_index: torch.Tensor
    canvas: slice

    def repeat(self, times: int) -> "SequenceLayout":
        """The layout of this batch repeated so many times (classifier-free guidance runs two branches)."""
        if times == 1:
            return self
        mask = None if self.attention_mask is None else self.attention_mask.repeat(times, 1)
        return SequenceLayout(self.position_ids.repeat(times, 1), mask, self.frame_index.repeat(times, 1), self.canvas)


@dataclass(frozen=True)
class DenoisingStep:
    """Which step of the denoising this is.

    Args:
        index: steps done before, over all blocks.
        block: number of the block being denoised, from 0.
        step_in_block: steps done before in this block.
        span: the block's stretch of the sequence, whose hidden states the step wants.
        active: for each example, whether it has something to commit; empty: all have. What is returned for the others
            is not looked at. A strategy that leaves them alone, and counts an example's own steps, gives each example
            of a batch what it gets alone.
    """

    index: int
    block: int
    step_in_block: int
    span: slice
    active: tuple[bool, ...] = ()


class DenoisingCache(ABC):
    """Decides what each denoising step recomputes. One object serves one `generate` at a time."""

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
            inputs_embeds: (batch, rows, hidden), all rows as they stand now.
            step: which step this is, and the rows wanted.

        Returns:
            (batch, rows wanted, hidden), after the final norm.
        """

    def attend(
        self,
        attention: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Called by each layer that a strategy runs with `denoising_cache=self`: store, replace, and attend.

        Args:
            attention: the layer's `VidLaDAAttention`; `attention.layer_idx` is its depth, `attention.attend` the
                attention itself.
            query, key, value: (batch, heads, computed rows, head_dim), already rotated.

        Returns:
            (batch, computed rows, heads, head_dim).
        """
        return attention.attend(query, key, value, attention_mask, **kwargs)[0]

    def schedule(self, steps: Sequence[DenoisingStep]) -> dict[str, torch.Tensor] | None:
        """What would be refreshed in these steps, without running anything.

        Args:
            steps: such as `VidLaDAGenerationConfig.planned_steps()` gives.

        Returns:
            For each kind of rows, such as "visual" and "text", a bool tensor (steps, groups of layers, shallow first):
            whether the rows of this kind outside the block are recomputed. None: the strategy decides as it goes.
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


class NoCache(DenoisingCache):
    """Named "none": recomputes every row at every step. Exact, and what all other strategies are measured against."""

    def denoise(self, text_model: nn.Module, inputs_embeds: torch.Tensor, step: DenoisingStep) -> torch.Tensor:
        """Runs all rows of the active examples through all layers; 0 for the others."""
        assert self.layout is not None
        mask, active = self.layout.attention_mask, torch.tensor(step.active or (True,) * len(inputs_embeds))
        awake = active.nonzero()[:, 0].to(inputs_embeds.device)
        outputs = text_model(
            inputs_embeds=inputs_embeds[awake],
            attention_mask=None if mask is None else mask[awake],
            position_ids=self.layout.position_ids[awake],
        )
        block = outputs.last_hidden_state[:, step.span]
        return block.new_zeros(len(active), *block.shape[1:]).index_copy(0, awake.to(block.device), block)

    def schedule(self, steps: Sequence[DenoisingStep]) -> dict[str, torch.Tensor]:
        """Everything, always."""
        return {kind: torch.ones(len(steps), 1, dtype=torch.bool) for kind in ("visual", "text")}


__all__ = ["DenoisingCache", "NoCache", "SequenceLayout", "DenoisingStep", "count_positions", "cache_session"]
