"""The answer being denoised: the canvas, the choice of a token at each position, and the random draws that it needs."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from .arguments_vidlada import text_ids
from .cache_vidlada import capturing, upload
from .devices_vidlada import exact_dtype


@dataclass(frozen=True)
class CanvasView:
    """A canvas as it stands, on the CPU.

    Args:
        ids: (batch, canvas), int64.
        masked: (batch, canvas), bool.
        eligible: (batch, canvas), bool, masked and before the stop, of examples that go on.
        stop: (batch,), int64.
        broken: (batch,), bool.
    """

    ids: torch.Tensor
    masked: torch.Tensor
    eligible: torch.Tensor
    stop: torch.Tensor
    broken: torch.Tensor


@dataclass
class Canvas:
    """The answer being denoised. Its tensors stay in place: captured steps read them where they are.

    Args:
        ids: (batch, canvas), int64.
        masked: (batch, canvas), bool, positions not committed yet. Tracked, never found again by comparing ids.
        stop: (batch,), int64, the column where the answer ends; the canvas' length while no stop was found.
        mask_token_id: what stands where nothing is committed.
        given: (batch, canvas), bool, tokens that stood there before the first step.
        halted: (batch,), bool, examples that a stopping criterion has ended: they commit nothing more.
        broken: (batch,), bool, examples for which the model gave no number somewhere.
        counted: (batch, canvas), bool, positions that were committed, and not behind a stop that was there already.
        forwards: (batch,), int64, forward passes that could commit any.
    """

    ids: torch.Tensor
    masked: torch.Tensor
    stop: torch.Tensor
    mask_token_id: int
    given: torch.Tensor = field(init=False)
    halted: torch.Tensor = field(init=False)
    broken: torch.Tensor = field(init=False)
    counted: torch.Tensor = field(init=False)
    forwards: torch.Tensor = field(init=False)
    _view: CanvasView | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.given, self.counted = ~self.masked, torch.zeros_like(self.masked)
        self.forwards = torch.zeros_like(self.stop)
        self.halted = torch.zeros_like(self.stop, dtype=torch.bool)
        self.broken = torch.zeros_like(self.halted)

    def eligible(self, columns: slice) -> torch.Tensor:
        """(batch, columns), bool: masked and before the stop, of examples that go on."""
        return (self.masked & self.is_before(self.stop) & ~self.halted[:, None])[:, columns]

    def is_before(self, columns: torch.Tensor) -> torch.Tensor:
        """(batch,), int64 -> (batch, canvas), bool: the positions before this column of each example."""
        return torch.arange(self.ids.shape[1], device=self.ids.device) < columns[:, None]

    def commit(self, columns: slice, tokens: torch.Tensor, committed: torch.Tensor, active: torch.Tensor) -> None:
        """Writes the committed tokens and counts them; `active` marks the examples that could commit in this pass."""
        self.ids[:, columns] = torch.where(committed, tokens, self.ids[:, columns])
        self.masked[:, columns] &= ~committed
        self.counted[:, columns] |= committed & self.is_before(self.stop)[:, columns]
        self.forwards += active
        self._view = None

    def doubtable(self, columns: slice) -> torch.Tensor:
        """(batch, columns), bool: committed, up to the token in which a stop begins."""
        return (~self.masked & ~self.given & self.is_before(self.stop + 1))[:, columns]

    def take_back(self, columns: slice, taken: torch.Tensor) -> None:
        """Masks tokens again. A stop may have been among them, so that stops are to be looked for again."""
        self.ids[:, columns].masked_fill_(taken, self.mask_token_id)
        self.masked[:, columns] |= taken
        self.counted[:, columns] &= ~taken
        self.stop.masked_fill_(taken.any(-1), self.ids.shape[1])
        self._view = None

    def stop_at(self, columns: torch.Tensor) -> None:
        """Moves the stops to these columns, (batch,), int64, where they are earlier."""
        torch.minimum(self.stop, upload(columns, self.stop.device), out=self.stop)
        view, self._view = self._view, None
        if view is not None and columns.device.type == "cpu":  # no need to look again
            stop = torch.minimum(view.stop, columns)
            before = torch.arange(self.ids.shape[1]) < stop[:, None]
            self._view = CanvasView(view.ids, view.masked, view.eligible & before, stop, view.broken)

    def halt(self, examples: torch.Tensor) -> None:
        """Ends these examples, (batch,), bool: they commit nothing more."""
        self.halted |= examples
        self._view = None

    def view(self) -> CanvasView:
        """The canvas on the CPU. Waits for the device, once until something changes."""
        if self._view is None:
            length = self.ids.shape[1]
            flags = (self.masked.long(), self.eligible(slice(None)).long())
            states = torch.cat([self.ids, *flags, self.stop[:, None], self.broken[:, None].long()], dim=1).cpu()
            ids, masked, eligible, stop, broken = states.split([length, length, length, 1, 1], dim=1)
            self._view = CanvasView(ids, masked.bool(), eligible.bool(), stop[:, 0], broken[:, 0].bool())
        return self._view

    def num_tokens(self) -> torch.Tensor:
        """(batch,), int64, how many of the answer's tokens are committed."""
        return self.counted.sum(-1)

    def tokens_per_forward(self) -> torch.Tensor:
        """(batch,), float."""
        return self.num_tokens() / self.forwards.clamp(min=1)


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

    def uniform(self, *shape: int, dtype: torch.dtype, active: Sequence[bool]) -> torch.Tensor:
        """(batch, *shape) from [0, 1).

        Args:
            active: of each example, whether it has something to draw for. Where it has not, its own generator is left
                alone, so that what it draws later does not depend on the rest of the batch.
        """
        if self.each is None:
            return self._draw((self.batch, *shape), self.shared, dtype)
        nothing = torch.full((1, *shape), 0.5, dtype=dtype, device=self.device)
        return torch.cat(
            [
                self._draw((1, *shape), generator, dtype) if draws else nothing
                for generator, draws in zip(self.each, active, strict=True)
            ]
        )

    def _draw(self, shape: tuple[int, ...], generator: torch.Generator | None, dtype: torch.dtype) -> torch.Tensor:
        device = self.device if generator is None else generator.device
        with capturing if device.type == "cuda" else nullcontext():
            return torch.rand(shape, generator=generator, dtype=dtype, device=device).to(self.device)


def sample_tokens(
    logits: torch.Tensor, settings: Any, random_source: RandomSource, active: Sequence[bool]
) -> tuple[torch.Tensor, torch.Tensor]:
    """A token and a confidence for each position.

    Args:
        logits: (batch, block, vocabulary), float32.
        settings: the generation config: `temperature` and `remasking`.
        active: of each example, whether it has something to commit.

    Returns:
        tokens (batch, block), int64, and confidence (batch, block): the token's float64 probability without noise
        (float32 where the device has no float64), or uniform draws for "random" remasking.
    """
    noisy, dtype = logits, exact_dtype(logits.device)
    if settings.temperature > 0:
        uniform = random_source.uniform(*logits.shape[1:], dtype=dtype, active=active)
        noisy = logits.to(dtype) - settings.temperature * (-uniform.log()).log()
    tokens = noisy.argmax(-1)
    if settings.remasking == "random":
        return tokens, random_source.uniform(logits.shape[1], dtype=torch.float32, active=active)
    return tokens, token_probabilities(logits, tokens)


def token_probabilities(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Logits (..., vocabulary) and tokens (...), int64 -> their probabilities (...), float64 (float32 where the device
    has no float64)."""
    exact = logits.to(exact_dtype(logits.device))
    return (exact.gather(-1, tokens[..., None])[..., 0] - exact.logsumexp(-1)).exp()


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


def prepare_suffix(suffix: Any, tokenizer: Any, device: torch.device) -> torch.Tensor:
    """(suffix,), int64, from text or ids; empty without one."""
    if isinstance(suffix, str):
        suffix = text_ids(suffix, tokenizer, "The suffix")
    if isinstance(suffix, (list, tuple)) and any(isinstance(item, str) for item in suffix):
        raise ValueError(f"`suffix` is one text for the whole batch, got a list of {len(suffix)}.")
    ids = torch.as_tensor([] if suffix is None else suffix, dtype=torch.long, device=device)
    if ids.dim() != 1:
        raise ValueError(f"`suffix` is one sequence of ids for the whole batch, got the shape {tuple(ids.shape)}.")
    return ids


__all__ = [
    "Canvas",
    "CanvasView",
    "RandomSource",
    "assemble_sequences",
    "prepare_suffix",
    "sample_tokens",
    "token_probabilities",
]
