"""Which masked tokens a denoising step commits.

All rules commit at least this step's share of the fixed schedule, so that a block is always finished in its steps; the
adaptive ones commit more where the model is sure, and so need fewer steps.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch

from .arguments_vidlada import check_positive


def num_transfer_tokens(masked: torch.Tensor, steps: int) -> torch.Tensor:
    """How many tokens each step of a block commits by the official rule: masked // steps, the rest to the first steps.

    Args:
        masked: (batch,), int64, masked positions at the start of the block.
        steps: steps of the block.

    Returns:
        (batch, steps), int64; each row sums to `masked`.
    """
    base, rest = masked // steps, masked % steps
    return base[:, None] + (torch.arange(steps, device=masked.device) < rest[:, None]).long()


def rank(values: torch.Tensor) -> torch.Tensor:
    """(batch, n): the rank of each value in its row, the largest 0; equal values keep their order."""
    return values.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)


class UnmaskingStrategy(ABC):
    """Chooses among the masked positions of the current block. Stateless: one object serves any number of calls.

    Attributes:
        needs_probabilities: whether confidences must be probabilities, which `remasking="random"` does not give.
    """

    needs_probabilities: ClassVar[bool] = False

    @abstractmethod
    def select(
        self, confidence: torch.Tensor, eligible: torch.Tensor, quota: torch.Tensor, logits: torch.Tensor
    ) -> torch.Tensor:
        """The positions to commit.

        Args:
            confidence: (batch, block), float, of the token chosen at each position; -inf where not eligible.
            eligible: (batch, block), bool, masked positions that may be committed (before any stop).
            quota: (batch,), int64, this step's share of the block by the fixed schedule.
            logits: (batch, block, vocabulary), float32, after guidance, suppression and processors.

        Returns:
            (batch, block), bool, a subset of `eligible`.
        """


class FixedQuotaUnmasking(UnmaskingStrategy):
    """Named "quota": the most confident positions, as many as the schedule says (the official rule)."""

    def select(
        self, confidence: torch.Tensor, eligible: torch.Tensor, quota: torch.Tensor, logits: torch.Tensor
    ) -> torch.Tensor:
        """The `quota` eligible positions of highest confidence; all of them where fewer are left."""
        return (rank(confidence.masked_fill(~eligible, -torch.inf)) < quota[:, None]) & eligible


class ThresholdUnmasking(FixedQuotaUnmasking):
    """Named "threshold": every position whose confidence reaches a bound (Fast-dLLM, arXiv 2505.22618)."""

    needs_probabilities = True

    def __init__(self, threshold: float = 0.9) -> None:
        self.threshold = check_positive("unmask_threshold", threshold)
        if self.threshold > 1:
            raise ValueError(f"`unmask_threshold` is a probability, of at most 1, got {threshold!r}.")

    def select(
        self, confidence: torch.Tensor, eligible: torch.Tensor, quota: torch.Tensor, logits: torch.Tensor
    ) -> torch.Tensor:
        """All eligible positions at or above the threshold, and at least the quota."""
        return (confidence >= self.threshold) | super().select(confidence, eligible, quota, logits)


class FactorUnmasking(FixedQuotaUnmasking):
    """Named "factor": the n most confident, n the largest with confidence_n >= 1 - factor / (n + 1) (Fast-dLLM)."""

    needs_probabilities = True

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = check_positive("unmask_factor", factor)

    def select(
        self, confidence: torch.Tensor, eligible: torch.Tensor, quota: torch.Tensor, logits: torch.Tensor
    ) -> torch.Tensor:
        """The longest run, from the most confident down, whose last one passes; and at least the quota."""
        ranks = rank(confidence.masked_fill(~eligible, -torch.inf))
        passes = (confidence >= 1 - self.factor / (ranks + 2).to(confidence.dtype)) & eligible
        longest = torch.where(passes, ranks + 1, 0).amax(-1)
        return (ranks < torch.maximum(longest, quota)[:, None]) & eligible


class EntropyBoundUnmasking(FixedQuotaUnmasking):
    """Named "entropy": the k of lowest entropy whose sum, the largest left out, keeps a bound (arXiv 2505.24857)."""

    def __init__(self, bound: float = 0.1) -> None:
        self.bound = check_positive("unmask_entropy_bound", bound)

    def select(
        self, confidence: torch.Tensor, eligible: torch.Tensor, quota: torch.Tensor, logits: torch.Tensor
    ) -> torch.Tensor:
        """As many as keep the bound (in nats, at least one), and at least the quota of the most confident."""
        entropy = torch.distributions.Categorical(logits=logits.double(), validate_args=False).entropy()
        entropy = entropy.masked_fill(~eligible, torch.inf)
        ordered, order = entropy.sort(dim=-1, stable=True)
        within = ordered.cumsum(-1) - ordered <= self.bound  # sorted: the largest of the first k is the k-th
        return torch.zeros_like(eligible).scatter(-1, order, within) | super().select(
            confidence, eligible, quota, logits
        )


# Name -> class, and the field of the generation config that it is made with.
UNMASKING_STRATEGIES: dict[str, tuple[Any, str | None]] = {
    "quota": (FixedQuotaUnmasking, None),
    "threshold": (ThresholdUnmasking, "unmask_threshold"),
    "factor": (FactorUnmasking, "unmask_factor"),
    "entropy": (EntropyBoundUnmasking, "unmask_entropy_bound"),
}


def is_own(strategy: UnmaskingStrategy) -> bool:
    """Whether a strategy is one of these, which keep nothing of a step."""
    return type(strategy) in {known for known, _ in UNMASKING_STRATEGIES.values()}


def resolve_unmasking(strategy: str | UnmaskingStrategy, settings: Any = None) -> UnmaskingStrategy:
    """A strategy by its name, made with its field of a generation config if one is given; or the object itself.

    Raises:
        ValueError: an unknown name; the message lists the known ones. An impossible value of its field.
    """
    if isinstance(strategy, str):
        if strategy not in UNMASKING_STRATEGIES:
            known = ", ".join(map(repr, UNMASKING_STRATEGIES))
            raise ValueError(f"Unknown `unmasking` {strategy!r}; known are {known}.")
        build, field = UNMASKING_STRATEGIES[strategy]
        return build() if field is None or settings is None else build(getattr(settings, field))
    if isinstance(strategy, type) or not callable(getattr(strategy, "select", None)):
        known = ", ".join(map(repr, UNMASKING_STRATEGIES))
        got = f"the class {strategy.__name__}" if isinstance(strategy, type) else type(strategy).__name__
        raise ValueError(f"`unmasking` must be a name ({known}) or an object of an UnmaskingStrategy, got {got}.")
    return strategy


__all__ = [
    "UNMASKING_STRATEGIES",
    "EntropyBoundUnmasking",
    "FactorUnmasking",
    "FixedQuotaUnmasking",
    "ThresholdUnmasking",
    "UnmaskingStrategy",
    "is_own",
    "num_transfer_tokens",
    "resolve_unmasking",
]
