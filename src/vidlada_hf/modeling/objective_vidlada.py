"""The training objective: mask each answer at a random rate, predict what was masked, weigh by the rate.

For each example t ~ U(0, 1) and p = (1 - 1e-3) t + 1e-3; each labeled token is masked with probability p; the loss is
the sum of cross entropy / p over the masked tokens, divided by the number of labeled tokens, mean over the batch (the
official training code; the bound of LLaDA, arXiv 2502.09992, equation 3).
"""

from typing import Literal

import torch

IGNORED = -100
LEAST_PROBABILITY = 1e-3
TimeSampling = Literal["independent", "antithetic", "stratified"]


def draw_probabilities(
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
    labels: torch.Tensor, probabilities: torch.Tensor, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Masks each labeled token with its example's probability.

    Args:
        labels: (batch, rows), int64, -100 where there is nothing to predict.
        probabilities: (batch,).

    Returns:
        (batch, rows), bool.
    """
    uniform = torch.rand(labels.shape, generator=generator, device=labels.device)
    return (uniform < probabilities[:, None]) & (labels != IGNORED)


def diffusion_loss(
    logits: torch.Tensor, labels: torch.Tensor, masked: torch.Tensor, probabilities: torch.Tensor
) -> torch.Tensor:
    """The loss of a batch, a scalar.

    Args:
        logits: (masked tokens, vocabulary), in the row-major order of `masked`.
        labels: (batch, rows), int64, -100 where there is nothing to predict.
        masked: (batch, rows), bool.
        probabilities: (batch,), the probability with which each example was masked.

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
    entropy = torch.nn.functional.cross_entropy(logits.float(), labels[masked], reduction="none")
    weight = (1 / (probabilities * lengths))[:, None].expand_as(labels)[masked]
    return (entropy * weight).sum() / len(labels)


__all__ = ["IGNORED", "TimeSampling", "diffusion_loss", "draw_masks", "draw_probabilities"]
