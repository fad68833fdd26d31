"""The examples of one optimizer step as one batch, however many processes and micro-batches share them.

The objective is a mean over examples, each of which is divided by the length of its own answer (see
`modeling/objective_vidlada`); on request it is a mean over all answer tokens, which weighs examples by their length.
Either is counted over the global batch, without the examples that accelerate repeats where an epoch's last batch is not
full. And the masks of an example follow from the run's seed, the step and the example's index in the global batch
alone. N processes with batches of B, or one that accumulates N times B, then give the loss and the gradients of one
process with a batch of N x B, up to rounding of sums. (Where padding is learned, `LabelOptions.padding`, a batch's own
longest example decides how much there is, and the two differ by that.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from ..modeling.objective_vidlada import IGNORED, TimeSampling, draw_mask_probabilities, draw_masks

Average = Literal["examples", "tokens"]


@dataclass(frozen=True)
class ProcessShare:
    """Which examples of a global batch one process has. The same micro-batch has the same size in all processes, which
    is how accelerate deals them out: round the processes first, then on to the next micro-batch.

    Args:
        process, processes: which of how many this is.
        repeated: how many examples at the end of the global batch count for nothing.
    """

    process: int = 0
    processes: int = 1
    repeated: int = 0


ALONE = ProcessShare()


def add_masks(
    batches: Sequence[dict[str, Any]], sampling: TimeSampling, seed: int, step: int, share: ProcessShare = ALONE
) -> None:
    """Draws which tokens of one step are masked: adds `masked` and `mask_probabilities` to a process's micro-batches.

    Args:
        batches: with "labels" (batch, tokens).
        sampling: of the probabilities, over the whole global batch.
        seed, step: of the run.
        share: which examples of the global batch these are.
    """
    total = share.processes * sum(len(batch["labels"]) for batch in batches) - share.repeated
    rates = draw_mask_probabilities(total, torch.device("cpu"), generator_of(seed, step), sampling)
    rates = torch.cat([rates, rates.new_ones(share.repeated)])
    first = 0
    for batch in batches:
        labels, size = batch["labels"], len(batch["labels"])
        examples = range(first + share.process * size, first + (share.process + 1) * size)
        own = rates[examples.start : examples.stop]
        masked = draw_masks(labels.cpu(), own, [generator_of(seed, step, example) for example in examples])
        batch["masked"], batch["mask_probabilities"] = masked.to(labels.device), own.to(labels.device)
        first += share.processes * size


def add_loss_scales(batches: Sequence[dict[str, Any]]) -> None:
    """Adds `loss_scale`, by which a micro-batch's mean loss is multiplied so that the mean over the micro-batches is
    that over all examples: 1 if all are of the same size, which only the last of an epoch is not."""
    total = sum(len(batch["labels"]) for batch in batches)
    for batch in batches:
        batch["loss_scale"] = len(batch["labels"]) * len(batches) / total


def count_targets(
    batches: Sequence[dict[str, Any]], average: Average, share: ProcessShare = ALONE
) -> list[torch.Tensor]:
    """How much each example of a process's micro-batches counts, int64 (batch,) of each: 1, or its answer's tokens."""
    counts = []
    for batch in batches:
        tokens = (batch["labels"] != IGNORED).sum(-1)
        counts.append(tokens if average == "tokens" else torch.ones_like(tokens))
    if share.repeated:
        size = len(counts[-1])
        counts[-1][max(0, size * (share.processes - share.process) - share.repeated) :] = 0
    return counts


def add_weights(batches: Sequence[dict[str, Any]], counts: Sequence[torch.Tensor], total: int, examples: int) -> None:
    """Adds `example_weights`, with which the mean over examples becomes that over what counts.

    Args:
        batches: as many as `counts`, of `count_targets`.
        total, examples: the sum of the counts, and how many examples there are, in the whole global batch.
    """
    for batch, counted in zip(batches, counts, strict=True):
        batch["example_weights"] = counted * (examples / total)


def generator_of(seed: int, step: int, example: int = -1) -> torch.Generator:
    """A generator of its own for a step, or for an example of its global batch."""
    # A sequence's trailing zeros count for nothing, so examples are counted from 1 behind a step's own 0.
    state = np.random.SeedSequence((seed, step, example + 1)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


__all__ = ["Average", "ProcessShare", "add_loss_scales", "add_masks", "add_weights", "count_targets"]
