"""What one `generate` was asked for, and what it knows of itself while it denoises."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from .cache_vidlada import DenoisingCache, DenoisingStep, SequenceLayout
from .canvas_vidlada import Canvas, RandomSource
from .generation_config_vidlada import Block, VidLaDAGenerationConfig
from .observers_vidlada import StepOutput
from .unmasking_vidlada import UnmaskingStrategy, num_transfer_tokens


@dataclass(frozen=True)
class GenerationRequest:
    """What one `generate` was asked for, checked.

    Args:
        input_ids: (batch, tokens), int64.
        settings: the generation config with the arguments in it.
        cache, unmasking: the strategies.
        canvas: as it stands before the first step.
        suffix_ids: (suffix,), int64.
        random_source: where random draws come from.
    """

    input_ids: torch.Tensor
    settings: VidLaDAGenerationConfig
    cache: DenoisingCache
    unmasking: UnmaskingStrategy
    canvas: Canvas
    suffix_ids: torch.Tensor
    random_source: RandomSource

    @property
    def branches(self) -> int:
        """2 with classifier-free guidance, which also runs the batch without its prompt; else 1."""
        return 2 if self.settings.cfg_scale > 0 else 1


@dataclass(frozen=True)
class StepTargets:
    """What a step may commit.

    Args:
        step: which step it is.
        columns: of the canvas, the block's.
        eligible: (batch, block), bool, masked positions before any stop.
        active: (batch,), bool, examples with an eligible position.
        quota: (batch,), int64, tokens that each example commits by the fixed schedule.
        is_last: whether it is the block's last step, which commits whatever is left.
    """

    step: DenoisingStep
    columns: slice
    eligible: torch.Tensor
    active: torch.Tensor
    quota: torch.Tensor
    is_last: bool


@dataclass
class DenoisingRun:
    """What one `generate` knows of itself while it denoises.

    Args:
        request: what was asked for.
        layout: of the sequences, all branches.
        embeddings: (branches x batch, tokens, hidden), of prompt, canvas and suffix.
        sequences: (batch, tokens), int64, prompt, canvas and suffix.
        num_steps: done so far.
    """

    request: GenerationRequest
    layout: SequenceLayout
    embeddings: torch.Tensor
    sequences: torch.Tensor
    num_steps: int = 0

    @property
    def canvas(self) -> Canvas:
        """The answer as it stands."""
        return self.request.canvas

    def steps_of_block(self, number: int, block: Block) -> Iterator[StepTargets]:
        """The steps of a block, until nothing is left to commit before a stop.

        Args:
            number: of the block, from 0.
        """
        begin, columns = self.layout.canvas.start, block.columns
        span = slice(begin + columns.start, begin + columns.stop)
        quotas = num_transfer_tokens(self.canvas.masked[:, columns].sum(-1), block.steps)
        for i in range(block.steps):
            eligible = self.canvas.eligible(columns)
            active = eligible.any(-1)
            flags = tuple(active.tolist())
            if not any(flags):
                return
            step = DenoisingStep(self.num_steps, number, i, span, flags * self.request.branches)
            yield StepTargets(step, columns, eligible, active, quotas[:, i], is_last=i == block.steps - 1)
            self.num_steps += 1

    def commit(
        self, targets: StepTargets, tokens: torch.Tensor, confidence: torch.Tensor, logits: torch.Tensor
    ) -> StepOutput:
        """Commits what the unmasking strategy selects; in the block's last step also what a user's rule has left.

        Args:
            tokens, confidence: (batch, block).
            logits: (batch, block, vocabulary).
        """
        eligible = targets.eligible
        confidence = confidence.masked_fill(~eligible, -torch.inf)
        selected = self.request.unmasking.select(confidence, eligible, targets.quota, logits) & eligible
        committed = eligible if targets.is_last else selected
        self.canvas.commit(targets.columns, tokens, committed, targets.active)
        self.sequences[:, self.layout.canvas] = self.canvas.ids
        return StepOutput(targets.step, tokens, confidence, committed, self.canvas.ids.clone())


__all__ = ["DenoisingRun", "GenerationRequest", "StepTargets"]
