"""Moving shapes as a source of conversations for training."""

from collections.abc import Sequence
from itertools import product
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field
from torch.utils.data import Dataset

from vidlada_hf.training.schema import Count, Counts, Share

from ..dataset import ENOUGH_FRAMES, MovingShapes
from ..questions import BENCHMARK_TYPES, LONG_TYPES


class ShapeConversations(Dataset):
    """Moving shapes as conversations of one question and its answer.

    Args:
        length: how many.
        group: so many in a row have the same number of frames, and all long answers or all short ones: the batch size
            of all processes together, so that little is padded and no process waits for one with more frames.
        frames: how many frames a group may have, each as likely: repeat a number for more weight.
        long: share of the groups with captions and descriptions, 0..1.
        compact: share of the groups that ask in a few words instead of a sentence, 0..1.
        types: those of the short answers; None: all of the benchmark.
        split, seed: as of `MovingShapes`.

    Items are `{"messages": [...], "example": Example}`.

    Raises:
        ValueError: `types` without short answers, or that cannot be answered from so few frames.
    """

    in_order: ClassVar[bool] = True  # shuffled, groups would fall apart

    def __init__(
        self,
        length: Count,
        group: Count = 1,
        frames: Counts = (8,),
        long: Share = 0.3,
        compact: Share = 0.1,
        types: Annotated[Sequence[str], Field(min_length=1)] | None = None,
        split: str = "train",
        seed: int = 0,
    ) -> None:
        self.length, self.group, self.seed = length, group, seed
        self.frames, self.long, self.compact = tuple(frames), long, compact
        self.short_types = tuple(type for type in types or BENCHMARK_TYPES if type not in LONG_TYPES)
        if not self.short_types:
            raise ValueError(f"`types` are {', '.join(types or ())}: name one with short answers, or leave it out.")
        self.parts = {
            (count, types, style): MovingShapes(split, length, count, types, question_style=style, seed=seed)
            for count in self.frames
            for types in (self.short_types, LONG_TYPES)
            for style in ("sentence", "compact")
        }
        self._check_few_frames()

    def _check_few_frames(self) -> None:
        """Raises now for types without an answer in so few frames, not in the middle of a run."""
        used = [types for types, share in ((self.short_types, 1 - self.long), (LONG_TYPES, self.long)) if share]
        few = [count for count in set(self.frames) if count < ENOUGH_FRAMES]
        for count, types in product(few, used):
            for index in range(min(self.length, len(types))):
                self.parts[count, types, "sentence"].draw(index)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng((self.seed, index // self.group))
        count = self.frames[rng.integers(len(self.frames))]
        types = LONG_TYPES if rng.random() < self.long else self.short_types
        style = "compact" if rng.random() < self.compact else "sentence"
        example = self.parts[count, types, style][index]
        return {"messages": example.as_question().messages(example.details.training_answer), "example": example}


__all__ = ["ShapeConversations"]
