"""The training objective: mask each answer at a random rate, predict what was masked, weigh by the rate.

For each example t ~ U(0, 1) and p = (1 - 1e-3) t + 1e-3; each labeled token is masked with probability p; the loss is
the sum of cross entropy / p over the masked tokens, divided by the number of labeled tokens, mean over the batch (the
official training code; the bound of LLaDA, arXiv 2502.09992, equation 3).
"""

from collections.abc import Sequence
from typing import Literal

import torch

IGNORED = -100
LEAST_PROBABILITY = 1e-3
TimeSampling = Literal["independent", "antithetic", "stratified"]


def draw_mask_probabilities(
    batch: int, device: torch.device, generator: torch.Generator | None = None, sampling: TimeSampling = "independent"
) -> torch.Tensor:
    """The probability p with which each example's answer is masked, (batch,), float32 in [1e-3, 1].

    Args:
        sampling: "independent" is the official rule. "antithetic" draws pairs t and 1 - t; "stratified" draws one t for
            each of `batch` equal parts of [0, 1). All three have the same distribution for each example; the last two
            spread a batch over it, which lowers the variance of the loss.
    """
    if sampling == "independent":
        t = torch.rand(batch, generator=generator, device=device)
    elif sampling == "antithetic":
        half = torch.rand((batch + 1) // 2, generator=generator, device=device)
        t = torch.cat([half, 1 - half])[:batch]
    elif sampling == "stratified":
        shuffled = torch.randperm(batch, generator=generator, device=device)
        t = (shuffled + torch.rand(batch, generator=generator, device=device)) / batch
    else:
        known = "'independent', 'antithetic', 'stratified'"
        raise ValueError(f"Unknown `time_sampling` {sampling!r}; known are {known}.")
    return (1 - LEAST_PROBABILITY) * t + LEAST_PROBABILITY


def draw_masks(
    labels: torch.Tensor,
    probabilities: torch.Tensor,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
) -> torch.Tensor:
    """Masks each labeled token with its example's probability.

    Args:
        labels: (batch, tokens), int64, -100 where there is nothing to predict.
        probabilities: (batch,).
        generator: of all draws (the official order, padding included); or a CPU generator for each example, which then
            draws the same however far the example is padded.

    Returns:
        (batch, tokens), bool.
    """
    labeled = labels != IGNORED
    if generator is None or isinstance(generator, torch.Generator):
        uniform = torch.rand(labels.shape, generator=generator, device=labels.device)
        return (uniform < probabilities[:, None]) & labeled
    masked = torch.zeros_like(labeled)
    for example, (own, probability) in enumerate(zip(generator, probabilities.cpu(), strict=True)):
        drawn = torch.rand(int(labeled[example].sum()), generator=own) < probability
        masked[example, labeled[example]] = drawn.to(labels.device)
    return masked


def complete_masks(
    labels: torch.Tensor,
    masked: torch.Tensor | None = None,
    probabilities: torch.Tensor | None = None,
    sampling: TimeSampling = "independent",
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The masks and probabilities given; what is not given is drawn in the official order, first all t, then all
    tokens.

    Args:
        generator: of all draws; or a CPU generator for each example, which then draws what it draws alone (`sampling`,
            which is about a batch, says nothing then).

    Returns:
        (batch, tokens), bool, and (batch,).
    """
    if probabilities is None:
        if generator is None or isinstance(generator, torch.Generator):
            probabilities = draw_mask_probabilities(len(labels), labels.device, generator, sampling)
        else:
            drawn = [draw_mask_probabilities(1, torch.device("cpu"), own) for own in generator]
            probabilities = torch.cat(drawn).to(labels.device)
    return draw_masks(labels, probabilities, generator) if masked is None else masked.bool(), probabilities


def check_labels(labels: torch.Tensor, inputs: torch.Tensor, vocabulary: int, placeholders: Sequence[int]) -> None:
    """Whether these labels can be learned from these inputs.

    Args:
        labels: (batch, tokens).
        inputs: ids (batch, tokens), or embeddings (batch, tokens, hidden).
        vocabulary: how many ids there are.
        placeholders: ids that stand for a video or an image; only looked for where `inputs` are ids.

    Raises:
        ValueError: another shape; a label that is no id and not -100, or that stands on a placeholder.
    """
    if labels.shape != inputs.shape[:2]:
        raise ValueError(
            f"`labels` have the shape {tuple(labels.shape)}, the inputs {tuple(inputs.shape[:2])}: each token "
            "needs one."
        )
    known = (labels == IGNORED) | ((labels >= 0) & (labels < vocabulary))
    if not known.all():
        wrong = labels[~known][0].item()
        raise ValueError(f"`labels` hold {wrong}: write ids from 0 to {vocabulary - 1}, or {IGNORED} to learn nothing.")
    if inputs.dim() == 2:
        is_visual = torch.isin(inputs, inputs.new_tensor(placeholders)) & (labels != IGNORED)
        if is_visual.any():
            example, token = is_visual.nonzero()[0].tolist()
            raise ValueError(
                f"Example {example} has a label on token {token}, which stands for its video: write {IGNORED} on "
                "visual tokens."
            )


def check_masks(
    labels: torch.Tensor,
    masked: torch.Tensor | None,
    probabilities: torch.Tensor | None,
    example_weights: torch.Tensor | None = None,
) -> None:
    """Whether given masks and weights fit labels (batch, tokens).

    Raises:
        ValueError: masks without their probabilities; another shape; a probability that is not in (0, 1].
    """
    if masked is not None and probabilities is None:
        raise ValueError("`masked` needs `mask_probabilities`, by which the loss weighs each example.")
    for name, given, expected in (
        ("masked", masked, labels.shape),
        ("mask_probabilities", probabilities, labels.shape[:1]),
        ("example_weights", example_weights, labels.shape[:1]),
    ):
        if given is not None and given.shape != expected:
            raise ValueError(f"`{name}` must have the shape {tuple(expected)}, got {tuple(given.shape)}.")
    if probabilities is not None and not ((probabilities > 0) & (probabilities <= 1)).all():
        raise ValueError(f"`mask_probabilities` must be above 0 and at most 1, got {probabilities.tolist()}.")


def diffusion_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    masked: torch.Tensor,
    probabilities: torch.Tensor,
    example_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """The loss of a batch, a scalar.

    Args:
        logits: (masked tokens, vocabulary), in the row-major order of `masked`; their device is the loss's.
        labels: (batch, tokens), int64, -100 where there is nothing to predict.
        masked: (batch, tokens), bool.
        probabilities: (batch,), the probability with which each example was masked.
        example_weights: (batch,), what each example's part of the mean is multiplied by; None for 1.

    Raises:
        ValueError: an example has nothing to predict, or a masked token has no label.
    """
    lengths = (labels != IGNORED).sum(-1)
    if not lengths.all():
        empty = (lengths == 0).nonzero()[:, 0].tolist()
        raise ValueError(
            f"Examples {empty} of the batch have no labeled token: their answers are empty. Leave them out."
        )
    if (masked & (labels == IGNORED)).any():
        raise ValueError("`masked` covers tokens without a label (-100): only labeled tokens can be predicted.")
    targets = labels[masked].to(logits.device)
    entropy = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
    weights = 1 / (probabilities * lengths)
    if example_weights is not None:
        weights = weights * example_weights
    return (entropy * weights[:, None].expand_as(labels)[masked].to(logits.device)).sum() / len(labels)


__all__ = [
    "IGNORED", "TimeSampling", "check_labels", "check_masks", "complete_masks", "diffusion_loss",
    "draw_mask_probabilities", "draw_masks",
]  # fmt: skip
