"""The examples of one optimizer step as one batch, however many processes and micro-batches share them.

The objective is a mean over examples, each of which is divided by the length of its own answer (see
`modeling/objective_vidlada`); on request it is a mean over all answer tokens, which weighs examples by their length.
Either is counted over the global batch, without the examples that accelerate repeats where an epoch's last batch is not
full. And the masks of an example follow from the run's seed, the step and the example's place in the global batch
alone. N processes with batches of B, or one that accumulates N times B, then give the loss and the gradients of one
process with a batch of N x B, up to rounding of sums. (Where padding is learned, `LabelOptions.padding`, a batch's own
longest example decides how much there is, and the two differ by that.)
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from ..modeling.objective_vidlada import IGNORED, TimeSampling, draw_mask_probabilities

Average = Literal["examples", "tokens"]


def add_masks(
    batches: Sequence[dict[str, Any]],
    sampling: TimeSampling,
    seed: int,
    step: int,
    process: int = 0,
    processes: int = 1,
    repeated: int = 0,
) -> None:
    """Draws which tokens of one step are masked: adds `masked` and `mask_probabilities` to a process's micro-batches.

    Args:
        batches: with "labels" (batch, rows). The same micro-batch has the same size in all processes, which is how
            accelerate deals them out: round the processes first, then on to the next micro-batch.
        sampling: of the probabilities, over the whole global batch.
        seed, step: of the run.
        process, processes: which of how many this is.
        repeated: how many examples at the end of the global batch count for nothing.
    """
    total = processes * sum(len(batch["labels"]) for batch in batches) - repeated
    rates = draw_mask_probabilities(total, torch.device("cpu"), generator_of(seed, step), sampling)
    rates = torch.cat([rates, rates.new_ones(repeated)])
    first = 0
    for batch in batches:
        labels, size = batch["labels"], len(batch["labels"])
        places = range(first + process * size, first + (process + 1) * size)
        rows = [
            draw_mask(row, rates[place], generator_of(seed, step, place))
            for row, place in zip(labels.cpu(), places, strict=True)
        ]
        batch["masked"] = torch.stack(rows).to(labels.device)
        batch["mask_probabilities"] = rates[places.start : places.stop].to(labels.device)
        first += processes * size


def add_shares(batches: Sequence[dict[str, Any]]) -> None:
    """Adds `share`, by which a micro-batch's mean loss is multiplied so that the mean over the micro-batches is that
    over all examples: 1 if all are of the same size, which only the last of an epoch is not."""
    total = sum(len(batch["labels"]) for batch in batches)
    for batch in batches:
        batch["share"] = len(batch["labels"]) * len(batches) / total


def count(
    batches: Sequence[dict[str, Any]], average: Average, process: int = 0, processes: int = 1, repeated: int = 0
) -> list[torch.Tensor]:
    """How much each example of a process's micro-batches counts, int64 (batch,) of each: 1, or its answer's tokens.

    Args:
        process, processes, repeated: see `add_masks`.
    """
    counts = []
    for batch in batches:
        tokens = (batch["labels"] != IGNORED).sum(-1)
        counts.append(tokens if average == "tokens" else torch.ones_like(tokens))
    if repeated:
        size = len(counts[-1])
        counts[-1][max(0, size * (processes - process) - repeated) :] = 0
    return counts


def add_weights(batches: Sequence[dict[str, Any]], counts: Sequence[torch.Tensor], total: int, examples: int) -> None:
    """Adds `example_weights`, with which the mean over examples becomes that over what counts.

    Args:
        batches: as many as `counts`, of `count`.
        total, examples: the sum of the counts, and how many examples there are, in the whole global batch.
    """
    for batch, counted in zip(batches, counts, strict=True):
        batch["example_weights"] = counted * (examples / total)


def draw_mask(labels: torch.Tensor, probability: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Masks labeled tokens (rows,) with a probability. What is drawn does not depend on how far the row is padded."""
    masked = labels != IGNORED
    masked[masked.clone()] = torch.rand(int(masked.sum()), generator=generator) < probability
    return masked


def generator_of(seed: int, step: int, place: int = -1) -> torch.Generator:
    """A generator of its own for a step, or for a place in its global batch."""
    # A sequence's trailing zeros count for nothing, so places are counted from 1 behind a step's own 0.
    state = np.random.SeedSequence((seed, step, place + 1)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


__all__ = ["Average", "add_masks", "add_shares", "add_weights", "count"]
