"""The order in which examples are drawn."""

from collections.abc import Iterator, Sequence

import torch
from transformers.trainer_pt_utils import LengthGroupedSampler


class SeededLengthGroupedSampler(LengthGroupedSampler):
    """transformers' grouping of examples of similar lengths, whose order follows from seed and epoch alone: the same in
    all processes and after a resume.

    Args:
        batch_size: examples of similar lengths in a row.
        lengths: of each example, in any unit.
    """

    def __init__(self, batch_size: int, lengths: Sequence[int], seed: int) -> None:
        super().__init__(batch_size, lengths=list(lengths))
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return super().__iter__()


__all__ = ["SeededLengthGroupedSampler"]
