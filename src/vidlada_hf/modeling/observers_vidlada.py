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
    """

    step: DenoisingStep
    tokens: torch.Tensor
    confidence: torch.Tensor
    committed: torch.Tensor
    canvas: torch.Tensor


class GenerationObservers:
    """Informs the streamer and the callback of one `generate`, and keeps its trace where that is asked for."""

    def __init__(self, streamer: Any, step_callback: Callable[[StepOutput], None] | None, keep_trace: bool) -> None:
        self.streamer, self.step_callback, self.keep_trace = streamer, step_callback, keep_trace
        self.trace: list[StepOutput] = []

    def on_start(self, input_ids: torch.Tensor) -> None:
        """Gives the streamer the prompts (batch, tokens)."""
        if self.streamer is not None:
            self.streamer.put(input_ids.cpu())

    def on_step_end(self, output: StepOutput, columns: slice, canvas: Canvas) -> None:
        """Reports a step, and the canvas from the current block to its end as a draft."""
        if self.keep_trace:
            values = (output.tokens, output.confidence, output.committed, output.canvas)
            self.trace.append(StepOutput(output.step, *(value.cpu() for value in values)))
        if hasattr(self.streamer, "put_draft"):
            self.streamer.put_draft(value=output.canvas[:, columns.start : int(canvas.stop.max())].cpu())
        if self.step_callback is not None:
            self.step_callback(output)

    def on_block_end(self, columns: slice, canvas: Canvas) -> None:
        """Gives the streamer a finished block, up to the stop."""
        if self.streamer is None:
            return
        end = min(columns.stop, int(canvas.stop.max()))
        if columns.start < end:
            self.streamer.put(canvas.ids[:, columns.start : end].clone().cpu())

    def close(self) -> None:
        """Ends the stream, also after an error: an iterating streamer must not be left waiting."""
        if self.streamer is not None:
            self.streamer.end()


__all__ = ["GenerationObservers", "StepOutput"]
