"""dLLM-Cache: prompt and answer are recomputed at their own intervals, and in between the answer's rows that moved."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .cache_vidlada import DenoisingStep, SequenceLayout
from .kv_cache_vidlada import ComputedTokens, SelectiveKVCache, check_interval

# Similarities closer than one over this are taken for equal, and the first rows are picked.
SIMILARITIES = 2**14


@dataclass(frozen=True)
class Stream:
    """The rows whose hidden states pass through the layers in one step.

    Args:
        rows: answers of the active examples, and prompts that are due.
        sure: places among them, of the rows that every layer recomputes.
        maybe: (examples, answer), places of the answers of which a layer picks rows.
        counts: how many rows of each example a layer recomputes.
    """

    rows: ComputedTokens
    sure: torch.Tensor
    maybe: torch.Tensor
    counts: tuple[int, ...]


class DLLMCache(SelectiveKVCache):
    """Named "interval" (dLLM-Cache, arXiv 2506.06295, section 3 and the authors' code).

    Every `prompt_interval` steps the prompt is recomputed, every `generation_interval` steps the answer (canvas and
    suffix). In other steps a layer computes the values of all answer rows, and recomputes those rows whose values are
    least similar (cosine) to the stored ones. All other rows reuse what attention and MLP gave when they were last
    computed. Of these the sum is stored, as the two are only ever used, and replaced, together.

    Args:
        prompt_interval, generation_interval: steps; the authors' for LLaDA-V. None: only in the first step.
        transfer_ratio: share of the answer's rows that are picked, rounded down.

    Raises:
        ValueError: an interval below 1, a ratio outside [0, 1].
    """

    def __init__(
        self, prompt_interval: int | None = 25, generation_interval: int | None = 7, transfer_ratio: float = 0.25
    ) -> None:
        self.prompt_interval = check_interval("prompt_interval", prompt_interval)
        self.generation_interval = check_interval("generation_interval", generation_interval)
        if not isinstance(transfer_ratio, int | float) or not 0 <= transfer_ratio <= 1:
            raise ValueError(f"`transfer_ratio` must lie between 0 and 1, got {transfer_ratio!r}.")
        self.transfer_ratio = transfer_ratio

    def begin(self, layout: SequenceLayout) -> None:
        """See `DenoisingCache.begin`."""
        super().begin(layout)
        # What attention and MLP gave, (slots, hidden) a layer: a slot for each row of the answers, and a last one for
        # all rows of the prompts, which need none: they pass through the layers only when they are recomputed.
        self.outputs: dict[int, torch.Tensor] = {}
        answers = self.numbers.marked(slice(layout.canvas.start, None), (True,) * len(self.numbers.lengths))
        of_answer = answers[self.numbers.real]
        slots = torch.where(of_answer, of_answer.cumsum(0) - 1, of_answer.sum())
        self._slots, self._slot_count = slots.to(self.numbers.places.device), int(of_answer.sum()) + 1
        self._streams: dict[Any, Stream] = {}

    def end(self) -> None:
        """See `DenoisingCache.end`."""
        super().end()
        self.outputs, self._streams = {}, {}

    def denoise(self, text_model: Any, inputs_embeds: torch.Tensor, step: DenoisingStep) -> torch.Tensor:
        """Runs the stream layer by layer."""
        stream = self._stream(step)
        slots = self._slots[stream.rows.numbers]
        hidden_states = self.embeddings(inputs_embeds, stream.rows)
        rotation = text_model.rotary_emb(hidden_states, self.numbers.position_ids[stream.rows.numbers][None])
        for i, layer in enumerate(text_model.layers):
            picked = self._pick(layer, hidden_states, stream)
            chosen = torch.cat([stream.sure, picked.flatten()]).sort().values  # example after example
            if i not in self.outputs:
                self.outputs[i] = hidden_states.new_zeros(self._slot_count, hidden_states.shape[-1])
            left = hidden_states + self.outputs[i][slots]
            if len(chosen):
                self.computed = ComputedTokens(stream.rows.numbers[chosen], stream.counts, chosen)
                cos, sin = (part[:, chosen] for part in rotation)
                fresh = layer(hidden_states[chosen][None], (cos, sin), None, self)[0]
                self.outputs[i].index_copy_(0, slots[chosen], fresh - hidden_states[chosen])
                left = left.index_copy(0, chosen, fresh)
            hidden_states = left
        return self.finish_step(text_model.norm(hidden_states), stream.rows, step)

    def _pick(self, layer: Any, hidden_states: torch.Tensor, stream: Stream) -> torch.Tensor:
        """(examples, rows picked): places in the stream. Stores the new values of all that it could have picked, also
        where the ratio of a short answer is less than a row."""
        count = int(self.transfer_ratio * stream.maybe.shape[1])
        if not stream.maybe.numel() or not self.transfer_ratio:
            return stream.maybe[:, :0]
        attention = layer.self_attn
        fresh = attention.v_proj(layer.input_layernorm(hidden_states[stream.maybe])).flatten(0, 1)
        values, numbers = self.values[attention.layer_idx], stream.rows.numbers[stream.maybe].flatten()
        similarity = torch.cosine_similarity(fresh.float(), values[numbers].flatten(1).float(), dim=-1)
        values.index_copy_(0, numbers, fresh.view(-1, *values.shape[1:]))
        # Rows that did not move are all as similar. Which of them are picked must not depend on rounding.
        order = (similarity * SIMILARITIES).round().view_as(stream.maybe).argsort(dim=-1, stable=True)
        return stream.maybe.gather(1, order[:, :count])

    def _stream(self, step: DenoisingStep) -> Stream:
        """Which rows take part in this step."""
        assert self.layout is not None
        active = self.numbers.active(step)
        prompt, answer = (
            tuple(a and is_due(interval, done) for a, done in zip(active, self.steps_done, strict=True))
            for interval in (self.prompt_interval, self.generation_interval)
        )
        key = (step.span.start, step.span.stop, active, prompt, answer)
        if key not in self._streams:
            begin = self.layout.canvas.start
            prompts = self.numbers.marked(slice(begin), prompt)
            marked = prompts | self.numbers.marked(slice(begin, None), active)
            sure = prompts | self.numbers.marked(slice(begin, None), answer)
            maybe = marked & ~sure
            partial = maybe.any(-1)
            width, device = maybe.shape[1] - begin, self.numbers.places.device
            places = (marked.flatten().cumsum(0) - 1).view_as(marked)
            counts = sure.sum(-1) + partial * int(self.transfer_ratio * width)
            self._streams[key] = Stream(
                rows=self.numbers.rows(marked, step),
                sure=places[sure].to(device),
                maybe=places[maybe].view(-1, width).to(device),
                counts=tuple(counts.tolist()),
            )
        return self._streams[key]

    def schedule(self, steps: Sequence[DenoisingStep]) -> dict[str, torch.Tensor]:
        """When the prompt and the answer are recomputed as a whole."""
        intervals = {"prompt": self.prompt_interval, "answer": self.generation_interval}
        return {
            kind: torch.tensor([[is_due(interval, step.index)] for step in steps])
            for kind, interval in intervals.items()
        }


def is_due(interval: int | None, steps_done: int) -> bool:
    """Whether something with this interval is recomputed after so many steps."""
    return steps_done == 0 or (interval is not None and steps_done % interval == 0)


__all__ = ["DLLMCache"]
