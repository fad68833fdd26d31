"""Many questions about one video in one sequence.

A sequence is what the chat template makes of one question, with the part behind the video repeated: each turn has the
positions right behind the video, and attends to the video and to itself. So one video, which takes most of the tokens,
serves all its questions. Most empty cells and newlines, and most of the padding behind an answer, are left out of the
sequence; the other tokens keep their positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..questions import LONG_TYPES
from .cells import GRID
from .dense_labels import LABELS
from .turns import Turn, TurnWriter

FRAME_TOKENS = GRID * (GRID + 1)
BLOCK = 32  # tokens, of the usual decoding
TEXT, NEWLINE = -1, -2  # in `cell`, where a token is none
# The entries of a sequence for each token, see `Packer.pack`, and their values behind its end.
FILLERS = dict.fromkeys(
    ("position_ids", "input_ids", "loss_weight", "answer_length", "exclusion_codes", "in_answer", "begins_sentence"), 0
) | {"segment": -1, "cell": TEXT}


@dataclass(frozen=True)
class EncodedScene:
    """The tower's features of a scene, and the labels of its cells. Both are the same for all stages.

    Args:
        features: (cells of all frames, hidden), float16.
        labels: (cells, labels), int8.
        is_filled: whether a cell holds a shape, (cells,), bool.
        frames: how many there are.
    """

    features: torch.Tensor
    labels: np.ndarray
    is_filled: np.ndarray
    frames: int


@dataclass(frozen=True)
class Packer:
    """Chooses which tokens of a video and which turns are in a sequence.

    Args:
        writer: of the turns.
        text_tokens, option_turns, long_answers, long_turns, block_masks, kept_empty, canvas, padding: as of
            `PackedQAOptions`.
    """

    writer: TurnWriter
    text_tokens: int
    option_turns: int
    long_answers: float
    long_turns: int
    block_masks: float
    kept_empty: float
    canvas: Sequence[int]
    padding: int

    def pack(
        self, scene: EncodedScene, turns: list[Turn], kind: str | None, rng: np.random.Generator
    ) -> dict[str, Any]:
        """One sequence, the video and some of the turns.

        Args:
            kind: of words that no answer may hold.

        Returns:
            For each token `segment` (0 for what all turns attend to, k for turn k), `position_ids`, `input_ids`, `cell`
            (its index, `NEWLINE` or `TEXT`), `loss_weight` (0 unless it is masked), `answer_length` (at the first token
            of an answer, else 0), `exclusion_codes`, `in_answer` (bool: in an answer or its padding) and
            `begins_sentence` (bool). For each turn `types`, and for each sentence `shape_labels` (sentences, labels).
        """
        parts = {name: [value] for name, value in self._video_tokens(scene, rng).items()}
        chosen = self._choose(turns, kind, rng)
        behind = len(self.writer.opening) + scene.frames * FRAME_TOKENS
        for number, (turn, padding) in enumerate(chosen, 1):
            for name, value in self._turn_tokens(turn, padding, number, behind, rng).items():
                parts[name].append(value)
        labels = np.concatenate([np.empty((0, len(LABELS)), np.int64), *(turn.shape_labels for turn, _ in chosen)])
        joined: dict[str, Any] = {name: np.concatenate(values) for name, values in parts.items()}
        return joined | {"types": [turn.type for turn, _ in chosen], "shape_labels": labels}

    def _video_tokens(self, scene: EncodedScene, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """The opening, and the tokens of the video that are kept."""
        positions = np.arange(scene.frames * FRAME_TOKENS)
        column = positions % (GRID + 1)
        is_newline = column == GRID
        cell = np.where(is_newline, NEWLINE, positions // (GRID + 1) * GRID + column)
        is_filled = ~is_newline & scene.is_filled[np.maximum(cell, 0)]
        is_kept = (rng.random(len(positions)) < self.kept_empty) | is_filled
        cell, positions = cell[is_kept], positions[is_kept]
        opening = len(self.writer.opening)
        size = opening + len(cell)
        return {
            "segment": np.zeros(size, np.int64),
            "position_ids": np.concatenate([np.arange(opening), opening + positions]),
            "input_ids": np.pad(self.writer.opening, (0, len(cell))),
            "cell": np.concatenate([np.full(opening, TEXT), cell]),
            "loss_weight": np.zeros(size, np.float32),
            "answer_length": np.zeros(size, np.int64),
            "exclusion_codes": np.zeros(size, np.int64),
            "in_answer": np.zeros(size, bool),
            "begins_sentence": np.zeros(size, bool),
        }

    def _turn_tokens(
        self, turn: Turn, padding: np.ndarray, number: int, behind: int, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """The tokens of a turn and of its padding, which has the positions `behind + padding`."""
        size = len(turn.input_ids) + len(padding)
        first = len(turn.input_ids) - turn.answer_length
        return {
            "segment": np.full(size, number),
            "position_ids": behind + np.concatenate([np.arange(len(turn.input_ids)), padding]),
            "input_ids": np.pad(turn.input_ids, (0, len(padding)), constant_values=self.writer.pad),
            "cell": np.full(size, TEXT),
            "loss_weight": np.pad(draw_loss_weights(turn, len(padding), rng, self.block_masks), (first, 0)),
            "answer_length": (np.arange(size) == first) * turn.answer_length,
            "exclusion_codes": np.pad(turn.exclusion_codes, (0, len(padding))),
            "in_answer": np.arange(size) >= first,
            "begins_sentence": np.isin(np.arange(size) - first, turn.sentences),
        }

    def _choose(self, turns: list[Turn], kind: str | None, rng: np.random.Generator) -> list[tuple[Turn, np.ndarray]]:
        """Long answers, the same one again where there are too few, with other masks, and short ones while there is
        room; each with the positions of its padding."""
        order = self.writer.without_kind([turns[i] for i in rng.permutation(len(turns))], kind)
        long = [turn for turn in order if turn.type in LONG_TYPES]
        count = self.long_turns if long and rng.random() < self.long_answers else 0
        long = [long[i % len(long)] for i in range(count)]
        options = self.writer.without_kind([self.writer.list_options(rng) for _ in range(self.option_turns)], kind)
        chosen, room = [], self.text_tokens
        for turn in options + long + [turn for turn in order if turn.type not in LONG_TYPES]:
            if len(turn.input_ids) <= room:
                padding = self._draw_padding(turn, rng)[: room - len(turn.input_ids)]
                chosen.append((turn, padding))
                room -= len(turn.input_ids) + len(padding)
        return chosen

    def _draw_padding(self, turn: Turn, rng: np.random.Generator) -> np.ndarray:
        """Positions, from the end of the video, of those padding tokens of an answer that are in the sequence."""
        unused = int(rng.choice(self.canvas)) - turn.answer_length
        if unused <= 0:
            return np.empty(0, np.int64)
        count = min(unused, int(rng.integers(1, self.padding + 1)))
        return len(turn.input_ids) + np.sort(rng.permutation(unused)[:count])


def draw_loss_weights(turn: Turn, padding: int, rng: np.random.Generator, block_masks: float = 0.0) -> np.ndarray:
    """Draws which tokens of an answer and its padding are masked: the weight of each in the loss, 0 where it is not.

    At least one token of the answer is. Padding is masked at the same rate, and weighs as much as the answer in all.

    Args:
        block_masks: share of the long answers that are masked as in the middle of decoding (`draw_block_masks`).

    Returns:
        (answer and padding,), float32.
    """
    length = turn.answer_length
    if block_masks and turn.type in LONG_TYPES and rng.random() < block_masks:
        masked, rate = draw_block_masks(length, rng), 1.0
    else:
        count = int(rng.integers(1, length + 1))
        masked = rng.permutation(length)[:count] if turn.masked_token is None else np.array([turn.masked_token])
        rate = len(masked) / length
    weights = np.zeros(length + padding, np.float32)
    weights[masked] = turn.emphasis[masked] * length**0.5 / len(masked)
    if padding:
        weights[length:] = (rng.random(padding) < rate) * length**0.5 / rate / padding
    return weights


def draw_block_masks(length: int, rng: np.random.Generator) -> np.ndarray:
    """Which tokens of an answer are masked in the middle of decoding: some of a block, and all behind it.

    Masks at a uniform rate hardly ever show this state, in which the next sentence has to be chosen.

    Returns:
        their indices, at least one, int64.
    """
    start = int(rng.integers(length))
    end = min(start + BLOCK, length)
    inside = start + rng.permutation(end - start)[: int(rng.integers(1, end - start + 1))]
    return np.concatenate([inside, np.arange(end, length)])


def stack_sequences(sequences: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Sequences of `Packer.pack` as one batch: (batch, tokens) of each entry in `FILLERS`, filled up to one length."""
    length = max(len(sequence["segment"]) for sequence in sequences)

    def fill(values: np.ndarray, filler: int) -> np.ndarray:
        return np.pad(values, (0, length - len(values)), constant_values=filler)

    return {
        name: torch.from_numpy(np.stack([fill(sequence[name], filler) for sequence in sequences]))
        for name, filler in FILLERS.items()
    }


def packed_attention_mask(segment: torch.Tensor, attended_turn: torch.Tensor) -> torch.Tensor:
    """The mask of packed turns: all tokens attend to segment 0, and each to its own segment.

    Args:
        segment: (batch, tokens), -1 for padding.
        attended_turn: the turn that the video attends to, (batch,); 0 for none.

    Returns:
        bool (batch, 1, tokens, tokens), true where a query (third) attends to a key (fourth).
    """
    own = segment[:, :, None] == segment[:, None, :]
    video = (segment == 0)[:, None, :]
    from_video = (segment == 0)[:, :, None] & (segment == attended_turn[:, None])[:, None, :]
    return (own | video | from_video)[:, None]


__all__ = ["FRAME_TOKENS", "NEWLINE", "TEXT", "EncodedScene", "Packer", "packed_attention_mask", "stack_sequences"]
