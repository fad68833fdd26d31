"""Which masked tokens a denoising step commits."""

from abc import ABC, abstractmethod

import torch


def quota_schedule(masked: torch.Tensor, steps: int) -> torch.Tensor:
    """How many tokens each step of a block commits (reference_behaviour: masked // steps, the rest to the first steps).

    Args:
        masked: (batch,), int64, masked positions at the start of the block.
        steps: steps of the block.

    Returns:
        (batch, steps), int64; each row sums to `masked`.
    """
    base, rest = masked // steps, masked % steps
    return base[:, None] + (torch.arange(steps, device=masked.device) < rest[:, None]).long()


class UnmaskingStrategy(ABC):
    """Chooses among the masked positions of the current block. Stateless: one object serves any number of calls."""

    @abstractmethod
    def select(
        self, confidence: torch.Tensor, eligible: torch.Tensor, quota: torch.Tensor, logits: torch.Tensor
    ) -> torch.Tensor:
        """The positions to commit.

        Args:
            confidence: (batch, block), float, of the token chosen at each position.
            eligible: (batch, block), bool, masked positions that may be committed (before any stop).
            quota: (batch,), int64, this step's share of the block by the fixed schedule.
            logits: (batch, block, vocabulary), float32, after guidance, suppression and processors.

        Returns:
            (batch, block), bool, a subset of `eligible`.
        """


class FixedQuota(UnmaskingStrategy):
    """Named "quota": the most confident positions, as many as the schedule says (the official rule)."""

    def select(
        self, confidence: torch.Tensor, eligible: torch.Tensor, quota: torch.Tensor, logits: torch.Tensor
    ) -> torch.Tensor:
        """The `quota` eligible positions of highest confidence; all of them where fewer are left."""
        order = confidence.masked_fill(~eligible, -torch.inf).argsort(dim=-1, descending=True, stable=True)
        rank = order.argsort(dim=-1)
        return (rank < quota[:, None]) & eligible


UNMASKING_STRATEGIES: dict[str, type[UnmaskingStrategy]] = {"quota": FixedQuota}


def resolve_unmasking(strategy: str | UnmaskingStrategy) -> UnmaskingStrategy:
    """A strategy by its name, or the object itself.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    if isinstance(strategy, str):
        if strategy not in UNMASKING_STRATEGIES:
            raise ValueError(
                f"Unknown `unmasking` {strategy!r}; known are {', '.join(map(repr, UNMASKING_STRATEGIES))}."
            )
        return UNMASKING_STRATEGIES[strategy]()
    if not callable(getattr(strategy, "select", None)):
        raise ValueError(
            f"`unmasking` must be a name ({', '.join(map(repr, UNMASKING_STRATEGIES))}) or an UnmaskingStrategy, "
            f"got {type(strategy).__name__}."
        )
    return strategy


__all__ = ["UNMASKING_STRATEGIES", "FixedQuota", "UnmaskingStrategy", "quota_schedule", "resolve_unmasking"]
