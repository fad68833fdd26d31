"""Who is informed while an answer is denoised: a streamer, a callback, and the trace."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .cache_vidlada import DenoisingStep
from .canvas_vidlada import Canvas


@dataclass
class StepOutput:
    """One step of the denoising, as a `step_callback` and the trace get it.

    Args:
        step: which step it was.
        tokens: (batch, block), int64, the token chosen at each position of the block.
        confidence: (batch, block), float, of the chosen tokens; -inf where nothing could be committed.
        committed: (batch, block), bool, the positions committed in this step.
        canvas: (batch, canvas), int64, after the step; `mask_token_id` where not known yet.
        taken_back: (batch, block), bool, the positions masked again in this step; none by most rules.
        num_tokens: (batch,), int64, how many stand committed after the step, without those that were committed behind
            an end that was there before the step.
    """

    step: DenoisingStep
    tokens: torch.Tensor
    confidence: torch.Tensor
    committed: torch.Tensor
    canvas: torch.Tensor
    taken_back: torch.Tensor
    num_tokens: torch.Tensor

    def to(self, device: torch.device | str) -> "StepOutput":
        """The same on another device."""
        tensors = (self.tokens, self.confidence, self.committed, self.canvas, self.taken_back, self.num_tokens)
        return StepOutput(self.step, *(tensor.to(device) for tensor in tensors))


class GenerationObservers:
    """Informs the streamer and the callback of one `generate`, and keeps its trace where that is asked for.

    Attributes:
        are_watching: whether anybody wants to hear of a step.
    """

    def __init__(self, streamer: Any, step_callback: Callable[[StepOutput], None] | None, keep_trace: bool) -> None:
        self.streamer, self.step_callback, self.keep_trace = streamer, step_callback, keep_trace
        self.are_watching = keep_trace or step_callback is not None or hasattr(streamer, "put_draft")
        self._trace: list[StepOutput] = []

    @property
    def trace(self) -> list[StepOutput]:
        """The steps, on the CPU."""
        return [output.to("cpu") for output in self._trace]

    def on_start(self, input_ids: torch.Tensor) -> None:
        """Gives the streamer the prompts (batch, tokens)."""
        if self.streamer is not None:
            self.streamer.put(input_ids.cpu())

    def on_step_end(self, output: StepOutput, columns: slice, canvas: Canvas) -> None:
        """Reports a step, and the canvas from the current block to its end as a draft."""
        if self.keep_trace:
            self._trace.append(output)
        if hasattr(self.streamer, "put_draft"):
            view = canvas.view()
            self.streamer.put_draft(value=view.ids[:, columns.start : int(view.stop.max())].clone())
        if self.step_callback is not None:
            self.step_callback(output)

    def on_block_end(self, columns: slice, canvas: Canvas) -> None:
        """Gives the streamer a finished block, up to the stop."""
        if self.streamer is None:
            return
        view = canvas.view()
        end = min(columns.stop, int(view.stop.max()))
        if columns.start < end:
            self.streamer.put(view.ids[:, columns.start : end].clone())

    def close(self) -> None:
        """Ends the stream, also after an error: an iterating streamer must not be left waiting."""
        if self.streamer is not None:
            self.streamer.end()


__all__ = ["GenerationObservers", "StepOutput"]
