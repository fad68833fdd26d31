"""What one `generate` was asked for, and what it knows of itself while it denoises."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch

from .cache_vidlada import DenoisingCache, DenoisingStep, SequenceLayout, upload
from .canvas_vidlada import Canvas, RandomSource, token_probabilities
from .generation_config_vidlada import Block, VidLaDAGenerationConfig
from .unmasking_vidlada import FixedQuotaUnmasking, UnmaskingStrategy, num_transfer_tokens
from .video_cache_vidlada import ChatBeginning, VideoCache


@dataclass(frozen=True)
class Prompt:
    """What is computed of the prompts: all of them, or what a video cache does not hold.

    Args:
        ids: (batch, tokens), int64.
        attention_mask: (batch, tokens), int64, 0 where padded.
        shared: what the video cache holds; None: there is none.
    """

    ids: torch.Tensor
    attention_mask: torch.Tensor
    shared: ChatBeginning | None = None

    @classmethod
    def of(
        cls,
        config: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        video_cache: VideoCache | Literal[True] | None,
        cfg_scale: float,
    ) -> "Prompt":
        """That of the prompts of `generate`. A `video_cache` of True is still to be made, of what all begin with.

        Raises:
            ValueError: guidance with a video cache, or prompts that do not begin as it does.
        """
        if video_cache is None:
            mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask.long()
            return cls(input_ids, mask)
        if cfg_scale > 0:
            raise ValueError(
                f"`cfg_scale` ({cfg_scale}) also runs the prompt without its video, and what a `video_cache` holds, or "
                "`share_video` shares, is only that with it: take one of the two."
            )
        shared = ChatBeginning.of(config, input_ids, attention_mask) if video_cache is True else video_cache
        return cls(*shared.cut_off(input_ids, attention_mask), shared)

    @property
    def begin(self) -> int:
        """The position of their first token."""
        return 0 if self.shared is None else len(self.shared)


@dataclass(frozen=True)
class GenerationRequest:
    """What one `generate` was asked for, checked.

    Args:
        input_ids: (batch, tokens), int64.
        settings: the generation config with the arguments in it.
        cache, unmasking: the strategies; the second is this call's own.
        canvas: as it stands before the first step.
        suffix_ids: (suffix,), int64.
        random_source: where random draws come from.
        prompt: what is computed of the prompts.
    """

    input_ids: torch.Tensor
    settings: VidLaDAGenerationConfig
    cache: DenoisingCache
    unmasking: UnmaskingStrategy
    canvas: Canvas
    suffix_ids: torch.Tensor
    random_source: RandomSource
    prompt: Prompt

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
        eligible: (batch, block), bool, masked positions before any stop; of a rule that looks again also those behind.
        active: (batch,), bool, examples with a masked position before any stop; `active_examples` are the same on the
            host.
        quota: (batch,), int64, tokens that each example commits by the fixed schedule.
        is_last: whether it is the block's last step, which commits whatever is left.
    """

    step: DenoisingStep
    columns: slice
    eligible: torch.Tensor
    active: torch.Tensor
    active_examples: tuple[bool, ...]
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
        may_stop: whether an answer may end before its canvas is full, by a stop or a stopping criterion.
        num_steps: done so far.
    """

    request: GenerationRequest
    layout: SequenceLayout
    embeddings: torch.Tensor
    sequences: torch.Tensor
    may_stop: bool
    num_steps: int = 0

    def __post_init__(self) -> None:
        suppressed = torch.tensor(self.request.settings.suppress_tokens, dtype=torch.long)
        self.suppressed_tokens = upload(suppressed, self.sequences.device)  # (ids,), int64
        # Of each block, how many masks each example has. With them and the quota rule every step is known from here.
        self._masks: list[list[int]] | None = None
        if type(self.request.unmasking) is FixedQuotaUnmasking and not self.may_stop:
            masked = [self.canvas.masked[:, block.columns].sum(-1) for block in self.request.settings.blocks()]
            self._masks = torch.stack(masked).tolist()

    @property
    def canvas(self) -> Canvas:
        """The answer as it stands."""
        return self.request.canvas

    @property
    def answer(self) -> slice:
        """The canvas' columns in `sequences`."""
        begin = self.request.input_ids.shape[1]
        return slice(begin, begin + self.canvas.ids.shape[1])

    def steps_of_block(self, number: int, block: Block) -> Iterator[StepTargets]:
        """The steps of a block, until nothing is left to commit before a stop.

        Args:
            number: of the block, from 0.
        """
        begin, columns = self.layout.canvas.start, block.columns
        span = slice(begin + columns.start, begin + columns.stop)
        quotas = num_transfer_tokens(self.canvas.masked[:, columns].sum(-1), block.steps)
        self.request.unmasking.on_block_start(block.steps)
        looks_again = getattr(self.request.unmasking, "looks_again", False)
        for i in range(block.steps):
            flags = self._active_examples(number, columns, i)
            if not any(flags):
                return
            eligible, is_last = self.canvas.eligible(columns), i == block.steps - 1
            active = eligible.any(-1)
            if looks_again:  # an end may be taken back: what stands behind it is filled too, while something else is
                eligible = self.canvas.masked[:, columns] & active[:, None]
            shadow = looks_again and i > 0 and not is_last
            step = DenoisingStep(self.num_steps, number, i, span, flags * self.request.branches, shadow)
            yield StepTargets(step, columns, eligible, active, flags, quotas[:, i], is_last)
            self.num_steps += 1

    def _active_examples(self, number: int, columns: slice, step_in_block: int) -> tuple[bool, ...]:
        """Of each example, whether it has an eligible position. Looks at the canvas only where that is not known: the
        quota rule commits at least one token a step while there is one."""
        if self._masks is not None:
            return tuple(step_in_block < masks for masks in self._masks[number])
        view = self.canvas.view()
        refuse_broken(view.broken)
        return tuple(view.eligible[:, columns].any(-1).tolist())

    def commit(
        self,
        targets: StepTargets,
        tokens: torch.Tensor,
        confidence: torch.Tensor,
        logits: torch.Tensor,
        shadow: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Commits what the unmasking strategy selects; in the block's last step also what a user's rule has left. Where
        there is a shadow, the strategy may take tokens back.

        Args:
            tokens, confidence: (batch, block).
            logits: (batch, block, vocabulary).
            shadow: the same of the block's shadow.

        Returns:
            (batch, block), bool, the positions committed, and those masked again.
        """
        eligible = targets.eligible
        chosen = logits.gather(-1, tokens[..., None])[..., 0]  # NaN wherever any is: the largest, to argmax
        self.canvas.broken |= (eligible & ~chosen.isfinite()).any(-1)
        confidence = confidence.masked_fill(~eligible, -torch.inf)
        selected = self.request.unmasking.select(confidence, eligible, targets.quota, logits) & eligible
        committed = eligible if targets.is_last else selected
        taken = torch.zeros_like(committed)
        if shadow is not None:
            doubtable = self.canvas.doubtable(targets.columns) & targets.active[:, None]
            belief = token_probabilities(shadow, self.canvas.ids[:, targets.columns]).masked_fill(~doubtable, torch.inf)
            taken = self.request.unmasking.take_back(belief, doubtable, committed, targets.quota) & doubtable
        self.canvas.commit(targets.columns, tokens, committed, targets.active)
        if shadow is not None:
            self.canvas.take_back(targets.columns, taken)
        self.sequences[:, self.answer] = self.canvas.ids
        return committed, taken


def refuse_broken(broken: torch.Tensor) -> None:
    """Raises a ValueError for examples, (batch,), bool, for which the model gave no number."""
    if broken.any():
        raise ValueError(
            f"The model's logits for example {int(broken.int().argmax())} are not finite (NaN or infinite): weights "
            "are damaged or were never set, a type such as float16 is too small for them, or a logits processor left "
            "no token. Look at the weights, and compute in bfloat16 or float32."
        )


__all__ = ["DenoisingRun", "GenerationRequest", "StepTargets", "refuse_broken"]
