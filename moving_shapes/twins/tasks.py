"""The tasks of the twins: packed question answering (`train.packed_qa`), causal, and with the next token as target.

The tokens of a sequence stand in the order of their positions, so in every task a causal mask is the lower triangle.
Dense labels stay as they are, also those about the whole clip: at a cell they can be learned as far as its mask sees.
"""

from typing import Any

import torch

from ..train.packed_qa import PackedQATask


class CausalQATask(PackedQATask):
    """Masked diffusion with a causal mask: a mask is predicted from what stands before it.

    Args:
        model, processor, seed, options: as of `PackedQATask`.
    """

    def _attention_mask(self, batch: dict[str, Any]) -> torch.Tensor:
        return super()._attention_mask(batch).tril()


class NextTokenQATask(CausalQATask):
    """Autoregression: nothing is masked, and each token of an answer is predicted at the one before it.

    Args:
        model, processor, seed, options: as of `PackedQATask`. Option lists without a question show part of their
            answer, which only masks can do: leave `option_turns` 0.
    """

    def collate(self, examples: list[int]) -> dict[str, Any]:
        """The sequences of `PackedQATask`, with every token of the answers as a target."""
        batch = super().collate(examples)
        return batch | predict_next(batch, self.writer.pad)

    def _targets(self, batch: dict[str, Any]) -> torch.Tensor:
        return batch["input_ids"].roll(-1, 1)

    def _embed(self, batch: dict[str, Any], masked: torch.Tensor) -> torch.Tensor:
        """No token is masked: `masked` are the tokens that predict."""
        return super()._embed(batch, torch.zeros_like(masked))


def predict_next(batch: dict[str, torch.Tensor], pad: int) -> dict[str, torch.Tensor]:
    """What the loss reads of answers, at the token before, which predicts: (batch, tokens) each.

    An answer weighs in all what it weighs in expectation with masks, the root of its length. Its padding has no target,
    since decoding stops at its end of turn.

    Args:
        batch: of `PackedQATask.collate`.
        pad: the id of padding.
    """
    length = batch["answer_length"]
    begins = torch.where(length > 0, torch.arange(length.shape[1]), 0).cummax(-1).values
    is_answer = batch["in_answer"] & (batch["input_ids"] != pad)
    weight = torch.where(is_answer, length.gather(1, begins).clamp(min=1).float().rsqrt(), 0.0)
    kept = {name: batch[name] for name in ("answer_length", "exclusion_codes", "begins_sentence")}
    return {name: tensor.roll(-1, 1) for name, tensor in ({"loss_weight": weight} | kept).items()}


__all__ = ["CausalQATask", "NextTokenQATask", "predict_next"]
