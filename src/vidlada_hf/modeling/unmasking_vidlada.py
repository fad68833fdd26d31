"""Which masked tokens a denoising step commits.

All rules commit at least this step's share of the fixed schedule, so that a block is always finished in its steps; the
adaptive ones commit more where the model is sure, and so need fewer steps. One of them also masks tokens again that it
doubts in a later step: fewer than that step commits, by its share.
"""

import copy
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from .arguments_vidlada import check_positive
from .devices_vidlada import exact_dtype


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


def check_probability(name: str, value: Any) -> float:
    """The value as a float; ValueError if it is not above 0 and at most 1."""
    probability = check_positive(name, value)
    if probability > 1:
        raise ValueError(f"`{name}` is a probability, of at most 1, got {value!r}.")
    return probability


def rank(values: torch.Tensor) -> torch.Tensor:
    """(batch, n): the rank of each value in its row, the largest 0; equal values keep their order."""
    return values.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)


class UnmaskingStrategy(ABC):
    """Chooses among the masked positions of the current block.

    One object serves any number of calls: what it keeps from step to step lies in a copy that `start` makes for each.

    Attributes:
        needs_probabilities: whether confidences must be probabilities, which `remasking="random"` does not give.
        looks_again: whether it judges committed tokens by the block's shadow (see `DenoisingStep`), in `take_back`. The
            cache strategy must compute one.
    """

    needs_probabilities: ClassVar[bool] = False
    looks_again: ClassVar[bool] = False

    def start(self) -> "UnmaskingStrategy":
        """The object that serves one `generate`: itself where it keeps nothing, as here; else a copy."""
        return self

    def on_block_start(self, steps: int) -> None:  # noqa: B027  # most have nothing to do here
        """Called before the first step of a block, which has at most so many."""

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

    def take_back(
        self, confidence: torch.Tensor, doubtable: torch.Tensor, committed: torch.Tensor, quota: torch.Tensor
    ) -> torch.Tensor:
        """The positions to mask again; only asked of a rule that `looks_again`, after `select`. Here: none.

        It is not asked in a block's first step, before which nothing is committed, nor in its last, behind which
        nothing may be masked.

        Args:
            confidence: (batch, block), float, the probability that the shadow gives to the token that stands at each
                position; infinite where it is not doubtable.
            doubtable: (batch, block), bool, positions committed in earlier steps of this block. Given tokens are none.
            committed: (batch, block), bool, what is committed in this step.
            quota: (batch,), int64, see `select`. So many more must be committed than are taken back.

        Returns:
            (batch, block), bool, a subset of `doubtable`.
        """
        return torch.zeros_like(doubtable)


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
        self.threshold = check_probability("unmask_threshold", threshold)

    def select(
        self, confidence: torch.Tensor, eligible: torch.Tensor, quota: torch.Tensor, logits: torch.Tensor
    ) -> torch.Tensor:
        """All eligible positions at or above the threshold, and at least the quota."""
        return (confidence >= self.threshold) | super().select(confidence, eligible, quota, logits)


class LocalUnmasking(FixedQuotaUnmasking):
    """Named "local": anchors, and around them what is less sure (LocalLeap, arXiv 2510.07081).

    Args:
        relaxed_threshold: probability that commits a position near an anchor.
        threshold: probability that makes a position an anchor.
        radius: how many positions away an anchor may be.
    """

    needs_probabilities = True

    def __init__(self, relaxed_threshold: float = 0.75, threshold: float = 0.9, radius: int = 4) -> None:
        self.relaxed_threshold = check_probability("unmask_relaxed_threshold", relaxed_threshold)
        self.threshold = check_probability("unmask_threshold", threshold)
        self.radius = int(check_positive("radius", radius))

    def select(
        self, confidence: torch.Tensor, eligible: torch.Tensor, quota: torch.Tensor, logits: torch.Tensor
    ) -> torch.Tensor:
        """All anchors, what is near one and reaches the relaxed threshold, and at least the quota."""
        anchors = confidence >= self.threshold
        near = F.max_pool1d(anchors.float(), 2 * self.radius + 1, stride=1, padding=self.radius) > 0
        relaxed = near & (confidence >= self.relaxed_threshold)
        return anchors | relaxed | super().select(confidence, eligible, quota, logits)


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
        entropy = torch.distributions.Categorical(
            logits=logits.to(exact_dtype(logits.device)), validate_args=False
        ).entropy()
        entropy = entropy.masked_fill(~eligible, torch.inf)
        ordered, order = entropy.sort(dim=-1, stable=True)
        within = ordered.cumsum(-1) - ordered <= self.bound  # sorted: the largest of the first k is the k-th
        return torch.zeros_like(eligible).scatter(-1, order, within) | super().select(
            confidence, eligible, quota, logits
        )


class KLASSUnmasking(FixedQuotaUnmasking):
    """Named "klass": what is confident and did not change in the last steps (KLASS, arXiv 2511.05664).

    Args:
        threshold: probability that a position must reach. It can be lower than that of "threshold".
        kl_bound: what the divergence from the step before must stay below, in nats.
        history: in how many steps in a row.
    """

    needs_probabilities = True

    def __init__(self, threshold: float = 0.6, kl_bound: float = 0.01, history: int = 2) -> None:
        self.threshold = check_probability("unmask_stable_threshold", threshold)
        self.kl_bound = check_positive("unmask_kl_bound", kl_bound)
        self.history = int(check_positive("history", history))
        self._before: torch.Tensor | None = None  # (batch, block, vocabulary), log-probabilities of the step before
        self._unchanged: torch.Tensor | None = None  # (batch, block), int64, steps in a row

    def start(self) -> "KLASSUnmasking":
        """A copy that knows of no step."""
        started = copy.copy(self)
        started.on_block_start(0)
        return started

    def on_block_start(self, steps: int) -> None:
        """Forgets the block before."""
        self._before = self._unchanged = None

    def select(
        self, confidence: torch.Tensor, eligible: torch.Tensor, quota: torch.Tensor, logits: torch.Tensor
    ) -> torch.Tensor:
        """All that is confident and unchanged, and at least the quota."""
        chosen = super().select(confidence, eligible, quota, logits)
        now = logits.log_softmax(-1)
        if self._before is None or self._unchanged is None:
            self._unchanged = torch.zeros_like(eligible, dtype=torch.long)
        else:
            # KL(now || before). A token that is suppressed has the probability 0 in both, and adds nothing.
            divergence = torch.where(now.isneginf(), 0, now.exp() * (now - self._before)).sum(-1)
            self._unchanged = torch.where(divergence < self.kl_bound, self._unchanged + 1, 0)
            chosen |= (confidence >= self.threshold) & (self._unchanged >= self.history)
        self._before = now
        return chosen


class ProphetUnmasking(FixedQuotaUnmasking):
    """Named "prophet": the whole block at once, when its best tokens lead clearly (Prophet, arXiv 2508.19982).

    Args:
        gap: how far the best logit must be above the second, in the mean of the masked positions, in the first third of
            the block's steps; two thirds of it in the second third, one third in the last.
    """

    def __init__(self, gap: float = 7.5) -> None:
        self.gap = check_positive("unmask_gap", gap)
        self._step, self._steps = 0, 1

    def start(self) -> "ProphetUnmasking":
        """A copy that counts the steps of its own blocks."""
        return copy.copy(self)

    def on_block_start(self, steps: int) -> None:
        """Counts from 0 again."""
        self._step, self._steps = 0, steps

    def select(
        self, confidence: torch.Tensor, eligible: torch.Tensor, quota: torch.Tensor, logits: torch.Tensor
    ) -> torch.Tensor:
        """All eligible positions of an example whose lead is large enough; else the quota."""
        best, second = logits.topk(2, dim=-1).values.unbind(-1)
        lead = torch.where(eligible, best - second, 0).sum(-1) / eligible.sum(-1).clamp(min=1)
        third = min(2, 3 * self._step // self._steps)
        self._step += 1
        is_clear = lead >= self.gap * (1 - third / 3)
        return (eligible & is_clear[:, None]) | super().select(confidence, eligible, quota, logits)


class WINOUnmasking(FixedQuotaUnmasking):
    """Named "wino": every position above a low bound; what is doubted later is masked again (WINO, arXiv 2507.18578).

    Args:
        draft_threshold: probability that commits a position.
        keep_threshold: probability that the shadow must give to a committed token, or it is taken back.
    """

    needs_probabilities = True
    looks_again = True

    def __init__(self, draft_threshold: float = 0.6, keep_threshold: float = 0.9) -> None:
        self.draft_threshold = check_probability("unmask_draft_threshold", draft_threshold)
        self.keep_threshold = check_probability("unmask_keep_threshold", keep_threshold)

    def select(
        self, confidence: torch.Tensor, eligible: torch.Tensor, quota: torch.Tensor, logits: torch.Tensor
    ) -> torch.Tensor:
        """All eligible positions at or above the draft threshold, and at least the quota."""
        return (confidence >= self.draft_threshold) | super().select(confidence, eligible, quota, logits)

    def take_back(
        self, confidence: torch.Tensor, doubtable: torch.Tensor, committed: torch.Tensor, quota: torch.Tensor
    ) -> torch.Tensor:
        """What is below the keep threshold, the most doubted first, as many as are committed beyond the quota."""
        allowed = committed.sum(-1) - quota
        return (confidence < self.keep_threshold) & (rank(-confidence) < allowed[:, None])


# Name -> class, and the fields of the generation config that it is made with, in the order of its arguments. The first
# is the number that can be typed behind its name.
UNMASKING_STRATEGIES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "quota": (FixedQuotaUnmasking, ()),
    "threshold": (ThresholdUnmasking, ("unmask_threshold",)),
    "local": (LocalUnmasking, ("unmask_relaxed_threshold", "unmask_threshold")),
    "factor": (FactorUnmasking, ("unmask_factor",)),
    "entropy": (EntropyBoundUnmasking, ("unmask_entropy_bound",)),
    "klass": (KLASSUnmasking, ("unmask_stable_threshold", "unmask_kl_bound")),
    "prophet": (ProphetUnmasking, ("unmask_gap",)),
    "wino": (WINOUnmasking, ("unmask_draft_threshold", "unmask_keep_threshold")),
}


def is_own(strategy: UnmaskingStrategy) -> bool:
    """Whether a strategy is one of these, which keep no logits of a step."""
    return type(strategy) in {known for known, _ in UNMASKING_STRATEGIES.values()}


def resolve_unmasking(strategy: str | UnmaskingStrategy, settings: Any = None) -> UnmaskingStrategy:
    """A strategy by its name, made with its fields of a generation config if one is given; or the object itself.

    Raises:
        ValueError: an unknown name; the message lists the known ones. An impossible value of a field.
    """
    if isinstance(strategy, str):
        if strategy not in UNMASKING_STRATEGIES:
            known = ", ".join(map(repr, UNMASKING_STRATEGIES))
            raise ValueError(f"Unknown `unmasking` {strategy!r}; known are {known}.")
        build, fields = UNMASKING_STRATEGIES[strategy]
        return build() if settings is None else build(*(getattr(settings, field) for field in fields))
    methods = ("start", "on_block_start", "select")
    if isinstance(strategy, type) or not all(callable(getattr(strategy, name, None)) for name in methods):
        known = ", ".join(map(repr, UNMASKING_STRATEGIES))
        got = f"the class {strategy.__name__}" if isinstance(strategy, type) else type(strategy).__name__
        raise ValueError(f"`unmasking` must be a name ({known}) or an object of an UnmaskingStrategy, got {got}.")
    return strategy


__all__ = [
    "UNMASKING_STRATEGIES",
    "EntropyBoundUnmasking",
    "FactorUnmasking",
    "FixedQuotaUnmasking",
    "KLASSUnmasking",
    "LocalUnmasking",
    "ProphetUnmasking",
    "ThresholdUnmasking",
    "UnmaskingStrategy",
    "WINOUnmasking",
    "is_own",
    "num_transfer_tokens",
    "resolve_unmasking",
]
