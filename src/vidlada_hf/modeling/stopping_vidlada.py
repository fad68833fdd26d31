"""Where an answer ends: the earliest stop on a canvas that is filled in any order."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.generation import StoppingCriteriaList

from .arguments_vidlada import text_ids
from .cache_vidlada import upload


@dataclass
class StopRules:
    """Stops of one `generate`.

    Args:
        sequences: token sequences, any of which ends the answer where it begins.
        strings: texts, any of which ends the answer at the token in which it begins.
        tokenizer: decodes the answer to find strings in it; not needed without strings.
        first_only: once a stop was found, search only for the first sequence (the official code's fault).
    """

    sequences: list[list[int]]
    strings: list[str]
    tokenizer: Any = None
    first_only: bool = False
    _uploaded: dict[torch.device, list[torch.Tensor]] = field(default_factory=dict, init=False, repr=False)

    def __bool__(self) -> bool:
        """Whether there is any stop."""
        return bool(self.sequences or self.strings)

    @classmethod
    def build(cls, settings: Any, official_strings: Sequence[str], tokenizer: Any) -> "StopRules":
        """From a generation config and the strings that the official code would tokenize.

        Raises:
            ValueError: strings without a tokenizer, or an empty stop.
        """
        strings = (
            [settings.stop_strings] if isinstance(settings.stop_strings, str) else list(settings.stop_strings or ())
        )
        if (strings or official_strings) and tokenizer is None:
            raise ValueError(
                f"Stop strings ({[*strings, *official_strings]}) need `tokenizer=` to be found in the answer."
            )
        sequences = [text_ids(text, tokenizer, "The stop") for text in official_strings]
        for ids in (settings.eos_token_id, settings.stop_token_ids):
            ids = [ids] if isinstance(ids, int) else ids if ids is not None else []
            sequences += [[stop] if isinstance(stop, int) else [int(i) for i in stop] for stop in ids]
        if not all(sequences) or not all(strings):
            raise ValueError("A stop is empty: give at least one token or character, or leave it out.")
        return cls(sequences, strings, tokenizer, settings.official_stop_search)

    def update(self, canvas: Any) -> None:
        """Moves the canvas' stops to the earliest on it as it stands. Only strings wait for the device."""
        length, device = canvas.ids.shape[1], canvas.ids.device
        if device not in self._uploaded:
            self._uploaded[device] = [upload(torch.tensor(sequence), device) for sequence in self.sequences]
        had_stop = canvas.stop < length
        for i, sequence in enumerate(self._uploaded[device]):
            if len(sequence) > length:
                continue
            column = first_occurrence(canvas.ids, canvas.masked, sequence)
            if self.first_only and i > 0:
                column = torch.where(had_stop, length, column)
            canvas.stop_at(column)
        if self.strings:
            view = canvas.view()
            columns = [
                first_text(ids, known, self.strings, self.tokenizer)
                for ids, known in zip(view.ids.tolist(), (~view.masked).tolist(), strict=True)
            ]
            canvas.stop_at(torch.tensor(columns))


def first_occurrence(ids: torch.Tensor, masked: torch.Tensor, sequence: torch.Tensor | Sequence[int]) -> torch.Tensor:
    """The first column where the sequence stands on committed tokens, (batch,), or the number of columns.

    Args:
        ids, masked: (batch, columns).
    """
    columns, size = ids.shape[1], len(sequence)
    sequence = torch.as_tensor(sequence, device=ids.device)
    matches = (ids.unfold(1, size, 1) == sequence) & ~masked.unfold(1, size, 1)
    begins = matches.all(-1)
    column = torch.arange(begins.shape[1], device=ids.device)
    return torch.where(begins, column, columns).amin(-1)


def first_text(ids: list[int], known: list[bool], strings: Sequence[str], tokenizer: Any) -> int:
    """The first token in which one of the strings begins, within runs of committed tokens; or the number of ids."""
    start = 0
    while start < len(ids):
        if not known[start]:
            start += 1
            continue
        end = start
        while end < len(ids) and known[end]:
            end += 1
        run = ids[start:end]
        if any(string in tokenizer.decode(run) for string in strings):
            return start + begin_of_text(run, strings, tokenizer)
        start = end
    return len(ids)


def begin_of_text(run: list[int], strings: Sequence[str], tokenizer: Any) -> int:
    """Within a run that holds one of the strings: the token in which the earliest begins."""

    def holds(tokens: list[int]) -> bool:
        return any(string in tokenizer.decode(tokens) for string in strings)

    end = next(end for end in range(1, len(run) + 1) if holds(run[:end]))
    return max(begin for begin in range(end) if holds(run[begin:end]))


def split_criteria(
    criteria: StoppingCriteriaList | Sequence[Any] | None,
) -> tuple[StoppingCriteriaList, list[str]]:
    """Callable criteria, and strings (the official code passes its stop strings under this name)."""
    given = list(criteria) if isinstance(criteria, (list, tuple)) else [] if criteria is None else [criteria]
    strings = [criterion for criterion in given if isinstance(criterion, str)]
    return StoppingCriteriaList(c for c in given if not isinstance(c, str)), strings


__all__ = ["StopRules", "split_criteria"]
