"""dLLM-Cache: prompt and answer are recomputed at their own intervals, in between the answer tokens that changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .arguments_vidlada import check_interval
from .cache_vidlada import DenoisingStep, SequenceLayout
from .kv_cache_vidlada import ComputedTokens, SelectiveKVCache, TokenPlan

# Similarities closer than one over this are taken for equal, and the first tokens are picked.
SIMILARITIES = 2**14


@dataclass(frozen=True, kw_only=True)
class LayerwiseTokens(ComputedTokens):
    """The tokens whose hidden states pass through the layers in one step: answers, and prompts that are refreshed.

    Args:
        always: (tokens,), int64, where those stand that every layer recomputes.
        candidates: (examples, answer), int64, where the answers stand of which a layer picks some.
        layer_counts: how many tokens of each example a layer recomputes.
    """

    always: torch.Tensor
    candidates: torch.Tensor
    layer_counts: tuple[int, ...]


class DLLMCache(SelectiveKVCache):
    """Named "interval" (dLLM-Cache, arXiv 2506.06295): prompt and answer are recomputed at intervals, in between the
    part of the answer that changed most.

    Section 3 of the paper, and the authors' code.
    Every `prompt_interval` steps the prompt is recomputed, every `generation_interval` steps the answer (canvas and
    suffix). In other steps a layer computes the values of all answer tokens, and recomputes those tokens whose values
    are least similar (cosine) to the stored ones. All other tokens reuse what attention and MLP gave when they were
    last computed. Of these the sum is stored, as the two are only ever used, and replaced, together.

    Args:
        prompt_interval, generation_interval: steps; the authors' for LLaDA-V. None: only in the first step.
        transfer_ratio: share of the answer's tokens that are picked, rounded down.

    Raises:
        ValueError: an interval below 1, a ratio outside [0, 1].
    """

    captures = True

    def __init__(
        self, prompt_interval: int | None = 25, generation_interval: int | None = 7, transfer_ratio: float = 0.25
    ) -> None:
        self.prompt_interval = check_interval("prompt_interval", prompt_interval)
        self.generation_interval = check_interval("generation_interval", generation_interval)
        if not isinstance(transfer_ratio, int | float) or not 0 <= transfer_ratio <= 1:
            raise ValueError(f"`transfer_ratio` must lie between 0 and 1, got {transfer_ratio!r}.")
        self.transfer_ratio = transfer_ratio

    def begin(self, layout: SequenceLayout) -> None:
        super().begin(layout)
        # What attention and MLP gave, (outputs, hidden) a layer: one for each token of the answers, and a last one for
        # all tokens of the prompts, which need none: they pass through the layers only when they are recomputed.
        self.outputs: dict[int, torch.Tensor] = {}
        answers = self.packed.mark(slice(layout.canvas.start, None), (True,) * len(self.packed.lengths))
        of_answer = torch.cat([answers[self.packed.is_token], torch.tensor([False])])  # and what nobody reads
        rows = torch.where(of_answer, of_answer.cumsum(0) - 1, of_answer.sum())
        self._output_rows, self._num_outputs = self.packed.upload(rows), int(of_answer.sum()) + 1

    def end(self) -> None:
        super().end()
        self.outputs = {}

    def plan(self, step: DenoisingStep) -> TokenPlan:
        """The tokens of `select_tokens`. A step that recomputes a prompt is too large to gain from being captured."""
        computed, prompts = self.select_tokens(step), self._due(self.prompt_interval, step)
        return self.finish_plan(step, (computed,), repeats=not any(prompts), with_finished=self._is_shape_kept(step))

    def _due(self, interval: int | None, step: DenoisingStep) -> tuple[bool, ...]:
        """Of each example, whether what has this interval is recomputed."""
        active = self.packed.active(step)
        return tuple(a and is_refreshed(interval, done) for a, done in zip(active, self.steps_done, strict=True))

    def _is_shape_kept(self, step: DenoisingStep) -> bool:
        """Whether examples that have finished are computed along: nothing is recomputed as a whole."""
        due = [any(self._due(interval, step)) for interval in (self.prompt_interval, self.generation_interval)]
        return self.keeps_shape and not any(due) and all(self.steps_done)

    def select_tokens(self, step: DenoisingStep) -> LayerwiseTokens:
        """The answers of the active examples, and their prompts where these are refreshed."""
        assert self.layout is not None
        packed, active, kept = self.packed, self.packed.active(step), self._is_shape_kept(step)
        prompt, answer = (self._due(interval, step) for interval in (self.prompt_interval, self.generation_interval))
        key = (step.span.start, step.span.stop, active, prompt, answer, kept)
        if key not in self._selections:
            begin = self.layout.canvas.start
            prompts = packed.mark(slice(begin), prompt)
            marked = prompts | packed.mark(slice(begin, None), (True,) * len(active) if kept else active)
            always = prompts | packed.mark(slice(begin, None), answer)
            candidates = marked & ~always
            width = candidates.shape[1] - begin
            counts = always.sum(-1) + candidates.any(-1) * int(self.transfer_ratio * width)
            offsets = (marked.flatten().cumsum(0) - 1).view_as(marked)
            self._selections[key] = LayerwiseTokens(
                **vars(packed.select(marked, step, with_finished=kept)),
                always=packed.upload(offsets[always]),
                candidates=packed.upload(offsets[candidates].view(-1, width)),
                layer_counts=tuple(counts.tolist()),
            )
        return self._selections[key]

    def run_layer(  # type: ignore[override]  # `computed` is always passed
        self,
        layer: Any,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None,
        *,
        computed: LayerwiseTokens,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Recomputes some of the tokens, and adds to the others what the layer gave them when they last were.

        Args:
            hidden_states: (1, tokens, hidden).
        """
        index, entering = layer.self_attn.layer_idx, hidden_states[0]
        picked = self._pick(layer, entering, computed)
        recomputed = torch.cat([computed.always, picked.flatten()]).sort().values  # example after example
        if index not in self.outputs:
            self.outputs[index] = entering.new_zeros(self._num_outputs, entering.shape[-1])
        leaving = entering + self.outputs[index][self._output_rows[computed.indices]]
        if len(recomputed):
            none = recomputed[:0]  # the block is looked up behind the last layer, among all tokens
            slots = computed.slots[recomputed]
            tokens = ComputedTokens(computed.indices[recomputed], slots, computed.layer_counts, block=none)
            cos, sin = (part[:, recomputed] for part in position_embeddings)
            fresh = super().run_layer(
                layer, entering[recomputed][None], (cos, sin), attention_mask, computed=tokens, **kwargs
            )[0]
            self.outputs[index].index_copy_(0, self._output_rows[slots], fresh - entering[recomputed])
            leaving = leaving.index_copy(0, recomputed, fresh)
        return leaving[None]

    def _pick(self, layer: Any, hidden_states: torch.Tensor, computed: LayerwiseTokens) -> torch.Tensor:
        """(examples, tokens picked): where they stand. Stores the new values of all candidates, also where the ratio of
        a short answer is less than a token."""
        candidates = computed.candidates
        count = int(self.transfer_ratio * candidates.shape[1])
        if not candidates.numel() or not self.transfer_ratio:
            return candidates[:, :0]
        attention = layer.self_attn
        fresh = attention.v_proj(layer.input_layernorm(hidden_states[candidates])).flatten(0, 1)
        values, stored = self.values[attention.layer_idx], computed.indices[candidates].flatten()
        similarity = torch.cosine_similarity(fresh.float(), values[stored].flatten(1).float(), dim=-1)
        values.index_copy_(0, computed.slots[candidates].flatten(), fresh.view(-1, *values.shape[1:]))
        # Tokens that did not change are all as similar. Which of them are picked must not depend on rounding.
        order = (similarity * SIMILARITIES).round().view_as(candidates).argsort(dim=-1, stable=True)
        return candidates.gather(1, order[:, :count])

    def schedule(self, steps: Sequence[DenoisingStep]) -> dict[str, torch.Tensor]:
        """When the prompt and the answer are recomputed as a whole."""
        intervals = {"prompt": self.prompt_interval, "answer": self.generation_interval}
        return {
            kind: torch.tensor([[is_refreshed(interval, step.index)] for step in steps])
            for kind, interval in intervals.items()
        }


def is_refreshed(interval: int | None, steps_done: int) -> bool:
    """Whether something with this interval is recomputed after so many steps."""
    return steps_done == 0 or (interval is not None and steps_done % interval == 0)


__all__ = ["DLLMCache"]
