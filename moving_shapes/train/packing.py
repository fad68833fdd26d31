"""Many questions about one video in one sequence.

A sequence is what the chat template makes of one question, with the part behind the video repeated: every turn
stands at the positions right behind the video and sees the video and itself. So one video, which takes most of the
rows, serves all its questions. Most empty cells and newlines, and most of the padding behind an answer, are left out of
the sequence; rows keep their positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..questions import LONG_TYPES
from .cells import GRID
from .timelines import TIMELINES
from .turns import Turn, TurnWriter

FRAME_ROWS = GRID * (GRID + 1)
# What a sequence says of each row, and what it says of rows behind its end: see `Packer.pack`.
FILLERS = dict.fromkeys(("position", "ids", "weight", "answers", "codes", "said"), 0) | {"segment": -1, "cell": -1}


@dataclass(frozen=True)
class Material:
    """What the tower made of a scene, and what its cells show: nothing here depends on a stage's options.

    Args:
        features: (cells of all frames, hidden), float16.
        labels: (cells, timelines), int8.
        filled: (cells,), bool.
        frames: how many there are.
    """

    features: torch.Tensor
    labels: np.ndarray
    filled: np.ndarray
    frames: int


@dataclass(frozen=True)
class Packer:
    """Chooses what of a video and which turns are in a sequence.

    Args:
        writer: of the turns.
        text_rows, options, long_turns, kept, canvas, padding: see `PackedQATask`.
    """

    writer: TurnWriter
    text_rows: int
    options: int
    long_turns: float
    kept: float
    canvas: Sequence[int]
    padding: int

    def pack(
        self, material: Material, turns: list[Turn], nameless: str | None, rng: np.random.Generator
    ) -> dict[str, Any]:
        """One sequence, the video and some of the turns.

        Args:
            nameless: the kind of words that answers may not name.

        Returns:
            Of each row `segment` (0 for what all turns see, k for turn k), `position`, `ids`, `cell` (its number, -2
            for newlines, -1 for text), `weight` in the loss (0 unless it is masked), `answers` (the answer's length,
            where one starts), `codes` (of `code_answer`), `said` (bool: in an answer or behind it). Of each turn
            `types` and `lives` (turns, timelines).
        """
        parts = {name: [value] for name, value in self._show(material, rng).items()}
        chosen = self._choose(turns, nameless, rng)
        behind = len(self.writer.opening) + material.frames * FRAME_ROWS
        for number, (turn, padding) in enumerate(chosen, 1):
            for name, value in self._tell(turn, padding, number, behind, rng).items():
                parts[name].append(value)
        lives = np.stack([turn.life for turn, _ in chosen]) if chosen else np.empty((0, len(TIMELINES)), np.int64)
        joined: dict[str, Any] = {name: np.concatenate(values) for name, values in parts.items()}
        return joined | {"types": [turn.type for turn, _ in chosen], "lives": lives}

    def _show(self, material: Material, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """The rows of the opening and of what is kept of the video."""
        places = np.arange(material.frames * FRAME_ROWS)
        column = places % (GRID + 1)
        newline = column == GRID
        cell = np.where(newline, -2, places // (GRID + 1) * GRID + column)
        kept = (rng.random(len(places)) < self.kept) | (~newline & material.filled[np.maximum(cell, 0)])
        cell, places = cell[kept], places[kept]
        opening = len(self.writer.opening)
        size = opening + len(cell)
        return {
            "segment": np.zeros(size, np.int64),
            "position": np.concatenate([np.arange(opening), opening + places]),
            "ids": np.pad(self.writer.opening, (0, len(cell))),
            "cell": np.concatenate([np.full(opening, -1), cell]),
            "weight": np.zeros(size, np.float32),
            "answers": np.zeros(size, np.int64),
            "codes": np.zeros(size, np.int64),
            "said": np.zeros(size, bool),
        }

    def _tell(
        self, turn: Turn, padding: np.ndarray, number: int, behind: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """The rows of a turn and of its padding."""
        size = len(turn.ids) + len(padding)
        first = len(turn.ids) - turn.answer
        return {
            "segment": np.full(size, number),
            "position": behind + np.concatenate([np.arange(len(turn.ids)), padding]),
            "ids": np.pad(turn.ids, (0, len(padding)), constant_values=self.writer.pad),
            "cell": np.full(size, -1),
            "weight": np.pad(draw_weights(turn, len(padding), rng), (first, 0)),
            "answers": (np.arange(size) == first) * turn.answer,
            "codes": np.pad(turn.codes, (0, len(padding))),
            "said": np.arange(size) >= first,
        }

    def _choose(
        self, turns: list[Turn], nameless: str | None, rng: np.random.Generator
    ) -> list[tuple[Turn, np.ndarray]]:
        """At most one long turn, and short ones until the rows are used up; each with the places of its padding."""
        order = self.writer.without([turns[i] for i in rng.permutation(len(turns))], nameless)
        long = [turn for turn in order if turn.type in LONG_TYPES][: int(rng.random() < self.long_turns)]
        options = self.writer.without([self.writer.list_options(rng) for _ in range(self.options)], nameless)
        chosen, room = [], self.text_rows
        for turn in options + long + [turn for turn in order if turn.type not in LONG_TYPES]:
            if len(turn.ids) <= room:
                padding = self._draw_padding(turn, rng)[: room - len(turn.ids)]
                chosen.append((turn, padding))
                room -= len(turn.ids) + len(padding)
        return chosen

    def _draw_padding(self, turn: Turn, rng: np.random.Generator) -> np.ndarray:
        """Places behind the video of what is shown of an answer's padding."""
        unused = int(rng.choice(self.canvas)) - turn.answer
        if unused <= 0:
            return np.empty(0, np.int64)
        shown = min(unused, int(rng.integers(1, self.padding + 1)))
        return len(turn.ids) + np.sort(rng.permutation(unused)[:shown])


def draw_weights(turn: Turn, padding: int, rng: np.random.Generator) -> np.ndarray:
    """Draws which tokens of an answer and its padding are masked: the weight of each in the loss, 0 where it is not.

    Some of the answer always is. Padding is masked as often, and weighs as much as the answer altogether.
    """
    masked = int(rng.integers(1, turn.answer + 1))
    places = rng.permutation(turn.answer)[:masked] if turn.asked is None else [turn.asked]
    weights = np.zeros(turn.answer + padding, np.float32)
    weights[places] = turn.answer**0.5 / len(places)
    if padding:
        share = len(places) / turn.answer
        weights[turn.answer :] = (rng.random(padding) < share) * turn.answer**0.5 / share / padding
    return weights


def stack(sequences: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Sequences of `Packer.pack` as one batch: (batch, rows) of each, the shorter ones filled up."""
    length = max(len(sequence["segment"]) for sequence in sequences)

    def fill(values: np.ndarray, filler: int) -> np.ndarray:
        return np.pad(values, (0, length - len(values)), constant_values=filler)

    return {
        name: torch.from_numpy(np.stack([fill(sequence[name], filler) for sequence in sequences]))
        for name, filler in FILLERS.items()
    }


def who_sees_whom(segment: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Segments (batch, rows), -1 for padding, and the turn that the video sees (batch,), 0 for none -> (batch, 1, rows,
    rows), bool: all see segment 0, and each its own."""
    own = segment[:, :, None] == segment[:, None, :]
    shown = (segment == 0)[:, None, :]
    shown_to_video = (segment == 0)[:, :, None] & (segment == seen[:, None])[:, None, :]
    return (own | shown | shown_to_video)[:, None]


__all__ = ["FRAME_ROWS", "Material", "Packer", "stack", "who_sees_whom"]
