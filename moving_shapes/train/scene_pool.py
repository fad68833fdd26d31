"""The scenes of packed question answering: drawn by number, and encoded once for all stages, as the tower is frozen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from .. import BENCHMARK_TYPES, Question, Scene, frame_times
from ..dataset import draw_question
from ..questions import HELPER_TYPES
from ..questions.captions import ask_caption
from ..scenes.cells import label_cells
from ..scenes.rendering import render
from ..scenes.sampling import sample_scene
from .cells import GRID, encode_cells, normalize_pixels
from .dense_labels import LABELS, label_cells_over_time
from .packing import EncodedScene

_SEED = 77
# The encoded scenes of this process: (the tower's fingerprint, `kinds`) -> (number of the scene, frames) -> scene.
_ENCODED: dict[tuple[float, tuple[tuple[str, float], ...]], dict[tuple[int, int], EncodedScene]] = {}


@dataclass(frozen=True)
class RenderedScene:
    """The input of the tower, uint8 (frames, side, side, 3), with `labels` and `is_filled` as of `EncodedScene`."""

    pixels: np.ndarray
    labels: np.ndarray
    is_filled: np.ndarray


class ScenePool:
    """Scenes of the training split, the same in all stages with the same kinds.

    Args:
        model: whose tower encodes them.
        size, group, frames, kinds: `scenes`, `group`, `frames` and `kinds` of `PackedQAOptions`.
    """

    def __init__(
        self, model: Any, size: int, group: int, frames: Sequence[int], kinds: Mapping[str, float] | None = None
    ) -> None:
        self.model, self.size, self.group, self.frames = model, size, group, tuple(frames)
        self.kinds = dict(kinds or {})
        frozen = (*model.model.vision_tower.parameters(), *model.model.multi_modal_projector.parameters())
        tower = sum(p.double().sum().item() for p in frozen)
        self.encoded = _ENCODED.setdefault((tower, tuple(self.kinds.items())), {})

    def __getitem__(self, number: int) -> EncodedScene:
        return self.encoded[self._key(number)]

    def __contains__(self, number: int) -> bool:
        """Whether a scene is encoded."""
        return self._key(number) in self.encoded

    def draw(self, number: int) -> tuple[Scene, Question, np.ndarray, np.random.Generator]:
        """A scene, its own question, the times of its frames, and the generator for its other questions."""
        times = frame_times(self._key(number)[1])
        rng = np.random.default_rng((_SEED, 1, number))
        if kind := self._draw_kind(number):
            scene = sample_scene(rng, "train", kind)
            return scene, ask_caption(scene, rng, 0.0), times, rng
        types = (*BENCHMARK_TYPES, *HELPER_TYPES)
        scene, first = draw_question(rng, "train", types[number % len(types)], times)
        return scene, first, times, rng

    def _draw_kind(self, number: int) -> str | None:
        """The kind of scene, if it is of one of `kinds`."""
        drawn = np.random.default_rng((_SEED, 2, number)).random()
        limits = np.cumsum(list(self.kinds.values()))
        return next((kind for kind, below in zip(self.kinds, limits, strict=True) if drawn < below), None)

    def encode(self, rendered: dict[int, RenderedScene]) -> None:
        """Encodes scenes, by their numbers."""
        if not rendered:
            return
        pixels = normalize_pixels(torch.from_numpy(np.concatenate([scene.pixels for scene in rendered.values()])))
        with torch.no_grad():
            features = encode_cells(self.model, pixels.to(self.model.device))
        parts = features.half().cpu().flatten(1, 2).split([len(scene.pixels) for scene in rendered.values()])
        for (number, scene), part in zip(rendered.items(), parts, strict=True):
            frames = len(scene.pixels)
            self.encoded[self._key(number)] = EncodedScene(part.flatten(0, 1), scene.labels, scene.is_filled, frames)

    def encode_all(self, workers: int) -> None:
        """Encodes all scenes, which so many worker processes render."""
        missing = [number for number in range(self.size) if number not in self]
        if not missing:  # an earlier stage has encoded them: no workers are started
            return
        loader = DataLoader(_Renderings(self, missing), self.group, num_workers=workers, collate_fn=dict)
        for rendered in tqdm(loader, f"Encoding {len(missing)} scenes", leave=False):
            self.encode(rendered)

    def _key(self, number: int) -> tuple[int, int]:
        """The number of a scene, and how many of its frames are used."""
        rng = np.random.default_rng((_SEED, number // self.group))
        return number, int(self.frames[rng.integers(len(self.frames))])


class _Renderings(Dataset):
    """Some scenes of the pool, as (number, rendered)."""

    def __init__(self, pool: ScenePool, numbers: list[int]) -> None:
        self.pool, self.numbers = pool, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> tuple[int, RenderedScene]:
        scene, _, times, _ = self.pool.draw(self.numbers[index])
        return self.numbers[index], render_scene(scene, times)


def render_scene(scene: Scene, times: np.ndarray) -> RenderedScene:
    """Renders a scene at `times` (T,), and labels its cells."""
    cells = label_cells(scene, times, GRID)
    labels = label_cells_over_time(scene, times, cells).reshape(-1, len(LABELS)).astype(np.int8)
    return RenderedScene(render(scene, times), labels, cells.identity.reshape(-1) >= 0)


__all__ = ["RenderedScene", "ScenePool", "render_scene"]
