"""The prompts of a training batch: what stands before the answers.

`Seq2SeqTrainer(predict_with_generate=True)` hands `generate` its evaluation batches as they are, each answer in its
prompt, and labels that say where it is.
"""

import torch

from .objective_vidlada import IGNORED


def attended_tokens(tokens: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """Which of the tokens (batch, tokens) are no padding, bool of the same shape.

    Args:
        attention_mask: (batch, tokens), 0 where padded; or (batch, 1, tokens, tokens), where padding does not see
            itself; or None.
    """
    if attention_mask is None:
        return torch.ones_like(tokens, dtype=torch.bool)
    if attention_mask.dim() == 4:
        attention_mask = attention_mask[:, 0].diagonal(dim1=1, dim2=2)
    return attention_mask.bool()


def cut_before_labels(
    input_ids: torch.Tensor | None, attention_mask: torch.Tensor | None, labels: torch.Tensor, placeholders: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each prompt up to its first label, padded on the left.

    Args:
        input_ids, labels: (batch, tokens), int64; labels are -100 where nothing is learned.
        attention_mask: see `attended_tokens`.
        placeholders: ids that stand for a video or an image.

    Returns:
        Ids and attention mask, (batch, longest prompt) each.

    Raises:
        ValueError: an example without labels, or whose first token has one; visual tokens behind the first label.
    """
    if input_ids is None or labels.shape != input_ids.shape:
        shape = None if input_ids is None else tuple(input_ids.shape)
        raise ValueError(f"`labels` must have the shape of `input_ids` {shape}, got {tuple(labels.shape)}.")
    is_labeled, attended = labels != IGNORED, attended_tokens(input_ids, attention_mask)
    is_prompt = attended & (is_labeled.cumsum(-1) == 0)
    is_visual = torch.isin(input_ids, input_ids.new_tensor(placeholders))
    for wrong, what, remedy in (
        (~is_labeled.any(-1), "has no label, so nothing says where its prompt ends", "leave `labels` out"),
        (
            ~is_prompt.any(-1),
            "has a label on its first token, so nothing is left as a prompt",
            "label the answer alone",
        ),
        ((is_visual & ~is_prompt).any(-1), "has a video or an image behind its first label", "label its last answer"),
    ):
        if wrong.any():
            example = int(wrong.nonzero()[0])
            raise ValueError(f"`labels` say where each prompt ends, and example {example} {what}: {remedy}.")
    length = int(is_prompt.sum(-1).max())
    ids, mask = input_ids.new_zeros(len(input_ids), length), input_ids.new_zeros(len(input_ids), length)
    for row, kept, own, rows in zip(ids, mask, input_ids, is_prompt, strict=True):
        prompt = own[rows]
        row[length - len(prompt) :], kept[length - len(prompt) :] = prompt, 1
    return ids, mask


__all__ = ["attended_tokens", "cut_before_labels"]
