"""The answer being denoised: the canvas, the choice of a token at each position, and the random draws that it needs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class Canvas:
    """The answer being denoised.

    Args:
        ids: (batch, canvas), int64.
        masked: (batch, canvas), bool, positions not committed yet. Tracked, never found again by comparing ids.
        stop: (batch,), int64, the column where the answer ends; the canvas' length while no stop was found.
        committed, forwards: (batch,), int64, tokens committed and forward passes that could commit any.
    """

    ids: torch.Tensor
    masked: torch.Tensor
    stop: torch.Tensor
    committed: torch.Tensor = field(init=False)
    forwards: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.committed, self.forwards = torch.zeros_like(self.stop), torch.zeros_like(self.stop)

    def eligible(self, columns: slice) -> torch.Tensor:
        """(batch, columns), bool: masked and before the stop."""
        column = torch.arange(self.ids.shape[1], device=self.ids.device)
        return (self.masked & (column < self.stop[:, None]))[:, columns]

    def commit(self, columns: slice, tokens: torch.Tensor, committed: torch.Tensor, active: torch.Tensor) -> None:
        """Writes the committed tokens and counts them; `active` marks the examples that could commit in this pass."""
        self.ids[:, columns] = torch.where(committed, tokens, self.ids[:, columns])
        self.masked[:, columns] &= ~committed
        self.committed += committed.sum(-1)
        self.forwards += active

    def tokens_per_forward(self) -> torch.Tensor:
        """(batch,), float."""
        return self.committed / self.forwards.clamp(min=1)


class RandomSource:
    """Random draws of one `generate`, from one generator or from one for each example.

    Raises:
        ValueError: the number of generators is not the batch size, or both a seed and generators are given.
    """

    def __init__(
        self,
        seed: int | None,
        generator: torch.Generator | Sequence[torch.Generator] | None,
        batch: int,
        device: torch.device,
    ) -> None:
        if seed is not None and generator is not None:
            raise ValueError("Give `seed` or `generator`, not both.")
        if seed is not None:
            generator = [torch.Generator(device).manual_seed(seed) for _ in range(batch)]
        self.each = list(generator) if isinstance(generator, Sequence) else None
        if self.each is not None and len(self.each) != batch:
            raise ValueError(
                f"`generator` holds {len(self.each)} generators for a batch of {batch}: give one or {batch}."
            )
        self.shared = None if isinstance(generator, Sequence) else generator
        self.batch, self.device = batch, device

    def uniform(self, *shape: int, dtype: torch.dtype, active: torch.Tensor) -> torch.Tensor:
        """(batch, *shape) from [0, 1).

        Args:
            active: (batch,), bool. An example's own generator is left alone where the example has nothing to draw for,
                so that what it draws later does not depend on the rest of the batch.
        """
        if self.each is None:
            return self._draw((self.batch, *shape), self.shared, dtype)
        nothing = torch.full((1, *shape), 0.5, dtype=dtype, device=self.device)
        return torch.cat(
            [
                self._draw((1, *shape), generator, dtype) if draws else nothing
                for generator, draws in zip(self.each, active.tolist(), strict=True)
            ]
        )

    def _draw(self, shape: tuple[int, ...], generator: torch.Generator | None, dtype: torch.dtype) -> torch.Tensor:
        device = self.device if generator is None else generator.device
        return torch.rand(shape, generator=generator, dtype=dtype, device=device).to(self.device)


def sample_tokens(
    logits: torch.Tensor, settings: Any, random_source: RandomSource, active: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """A token and a confidence for each position.

    Args:
        logits: (batch, block, vocabulary), float32.
        settings: the generation config: `temperature` and `remasking`.
        active: (batch,), bool, examples that have something to commit.

    Returns:
        tokens (batch, block), int64, and confidence (batch, block): the token's float64 probability without noise, or
        uniform draws for "random" remasking.
    """
    noisy = logits
    if settings.temperature > 0:
        uniform = random_source.uniform(*logits.shape[1:], dtype=torch.float64, active=active)
        noisy = logits.double() - settings.temperature * (-uniform.log()).log()
    tokens = noisy.argmax(-1)
    if settings.remasking == "random":
        return tokens, random_source.uniform(logits.shape[1], dtype=torch.float32, active=active)
    exact = logits.double()
    return tokens, (exact.gather(-1, tokens[..., None])[..., 0] - exact.logsumexp(-1)).exp()


def assemble_sequences(
    sequences: torch.Tensor, canvas: slice, stop: torch.Tensor, pad_token_id: int | None
) -> torch.Tensor:
    """Each prompt, its answer up to the stop, and the suffix, padded on the right.

    Args:
        sequences: (batch, tokens), int64.
        canvas: its positions in the sequences.
        stop: (batch,), int64, counted from the canvas' beginning.

    Returns:
        (batch, tokens), int64.
    """
    parts = [
        torch.cat([sequence[: canvas.start + end], sequence[canvas.stop :]])
        for sequence, end in zip(sequences, stop.tolist(), strict=True)
    ]
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=float(pad_token_id or 0))


__all__ = ["Canvas", "RandomSource", "assemble_sequences", "sample_tokens"]
