"""The tower's first lesson: what is in each cell of a frame.

The projector's output in a cell is trained to be classified by the text model's own embeddings of the color and shape
words, and to hold the place of the shape. So visual rows begin as words do, and the text model can read them at once.

Training never shows some combinations of color and shape, and a tower that learns "what is red is no circle" fails on
those that are held out (61 % of shapes right). Two things keep it from that: a color is only told from the others that
the shape is shown in, and a shape from those that the color is shown with; and half of the scenes show the named
shapes in colors that have no name, and one of six the named colors on shapes that have none.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from vidlada_hf.training.schema import Count
from vidlada_hf.training.task import Task, accuracy

from ..scenes.appearance import draw_looks
from ..scenes.cells import label_cells
from ..scenes.rendering import NAMELESS_SHAPES, PALETTE, render
from ..scenes.sampling import CLEARANCE, RADII
from ..scenes.scene import COLORS, SHAPES, MovingShape, Scene, Span
from ..scenes.splits import get_split
from ..scenes.timelines import END, Role
from .combinations import shown_together

GRID = 4
NAMELESS = -1
_FILLED_WEIGHT = 6.0  # most cells are empty
_PLACE_WEIGHT = 8.0
_COUNTS = (1, 2, 3, 4, 4, 4, 4, 4)  # shapes in a scene: a crowded frame teaches more in the same time


class Cells(Task):
    """Classifies every cell of single frames.

    Args:
        scenes: how many different frames there are.
    """

    shown: torch.Tensor

    def __init__(self, model: Any, processor: Any, seed: int = 0, scenes: Count = 200_000) -> None:
        super().__init__(model, processor, seed)
        self.scenes = scenes
        hidden = model.config.text_config.hidden_size
        names = processor.tokenizer.convert_tokens_to_ids
        self.words = {"color": names(list(COLORS)), "shape": names(list(SHAPES))}
        # The last two are "empty" and `NAMELESS`: possible with everything.
        self.register_buffer("shown", nn.functional.pad(shown_together(), (0, 2, 0, 2), value=True), persistent=False)
        self.heads["empty"] = nn.Linear(hidden, 2)
        self.heads["place"] = nn.Linear(hidden, 2)

    def dataset(self) -> Dataset:
        """Items: pixels uint8 (1, 64, 64, 3) and labels (1, 4, 4)."""
        return _Frames(self.scenes, self.seed)

    def collate(self, examples: list[Any]) -> dict[str, torch.Tensor]:
        """Joins the frames of all scenes, normalized as the processor does; `NAMELESS` labels what has no name."""
        parts = (torch.from_numpy(np.concatenate(part)) for part in zip(*examples, strict=True))
        pixels, colors, shapes, places = parts
        return {"pixels": normalize(pixels), "color": colors, "shape": shapes, "place": places}

    def forward(self, *, pixels: torch.Tensor, **labels: torch.Tensor) -> dict[str, Any]:  # type: ignore[override]
        """Cross entropy of color and shape, squared error of the place in filled cells."""
        cells = encode_cells(self.model, pixels)
        filled = labels["shape"] != len(SHAPES)
        weight = torch.where(filled, _FILLED_WEIGHT, 1.0)
        empty = self.heads["empty"](cells)
        possible = {"color": self.shown.T[labels["shape"]][..., :-1], "shape": self.shown[labels["color"]][..., :-1]}
        loss, metrics = cells.new_zeros(()), {}
        for i, (name, ids) in enumerate(self.words.items()):
            embeddings: Any = self.model.get_input_embeddings().weight
            words = embeddings[ids]
            logits = torch.cat([cells @ words.T * cells.shape[-1] ** -0.5, empty[..., i : i + 1]], -1)
            entropy = nn.functional.cross_entropy(
                logits.masked_fill(~possible[name], -torch.inf).flatten(0, 2),
                labels[name].flatten(),
                reduction="none",
                ignore_index=NAMELESS,
            )
            loss = loss + (entropy * weight.flatten()).mean()
            metrics[f"{name}_accuracy"] = accuracy(logits, labels[name].masked_fill(~filled, -1))
        error = (self.heads["place"](cells) - labels["place"]).square()[filled].mean()
        metrics["place_error"] = error.item() ** 0.5
        said_empty = logits.argmax(-1) == logits.shape[-1] - 1
        metrics["empty_accuracy"] = said_empty[~filled].float().mean().item()
        return {"loss": loss + _PLACE_WEIGHT * error, "metrics": metrics}


class _Frames(Dataset):
    def __init__(self, scenes: int, seed: int) -> None:
        self.scenes, self.seed = scenes, seed

    def __len__(self) -> int:
        return self.scenes

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        rng = np.random.default_rng((self.seed, index))
        scene, times = crowd(rng), np.zeros(1)
        cells = label_cells(scene, times, GRID)
        filled, color, shape, palette = cells.identity >= 0, cells.color, cells.shape, None
        if index % 6 in (1, 2, 3):
            color, palette = np.where(filled, NAMELESS, color), nameless_colors(rng)
        elif index % 6 == 4:
            shape = np.where(filled, NAMELESS, shape)
            drawn = [replace(s, shape=NAMELESS_SHAPES[rng.integers(len(NAMELESS_SHAPES))]) for s in scene.shapes]
            scene = replace(scene, shapes=tuple(drawn))
        return render(scene, times, palette=palette), color, shape, places_of(cells.offset)


def crowd(rng: np.random.Generator) -> Scene:
    """A scene of the training split in which nothing happens: a single frame of it shows all."""
    split, count = get_split("train"), int(rng.choice(_COUNTS))
    places: list[np.ndarray] = []
    while len(places) < count:
        place = rng.uniform(0.14, 0.86, 2)
        if all(np.abs(place - other).max() >= CLEARANCE for other in places):
            places.append(place)
        elif rng.random() < 0.02:  # no room is left: begin again
            places.clear()
    roles = draw_looks(rng, split, [Role(((0, END),), "still")] * count)
    shapes = []
    for role, (x, y) in zip(roles, places, strict=True):
        stay = Span(0.0, 1.0, (x, y), (x, y))
        shapes.append(MovingShape(role.color, role.shape, float(rng.uniform(*RADII)), (stay,), "still"))
    background = split.backgrounds[rng.integers(len(split.backgrounds))]
    return Scene(split.name, "steady", tuple(shapes), background, int(rng.integers(2**31)))


def nameless_colors(rng: np.random.Generator) -> np.ndarray:
    """Colorful colors, each far from those that have a name: float (8, 3), 0..255."""
    found: list[np.ndarray] = []
    named = np.array(list(PALETTE.values()))
    while len(found) < len(COLORS):
        color = rng.uniform(5, 250, 3)
        if np.ptp(color) > 60 and np.linalg.norm(named - color, axis=1).min() > 55:
            found.append(color)
    return np.stack(found)


def places_of(offset: np.ndarray) -> np.ndarray:
    """Offsets within cells (..., 4, 4, 2) -> places in the frame, -1..1, float32 of the same shape."""
    steps = np.arange(GRID, dtype=np.float32) + 0.5
    centers = np.stack(np.meshgrid(steps, steps), -1)  # x, y
    return (centers + offset) / GRID * 2 - 1


def normalize(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 (frames, side, side, 3) -> float32 (frames, 3, side, side) in -1..1, as the video processor makes them."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def encode_cells(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Pixels (frames, 3, side, side) -> features of the cells (frames, 4, 4, hidden), without newlines."""
    rows = model.get_video_features(pixels, vision_batch_size=None)[0]
    return rows.unflatten(0, (len(pixels), GRID, GRID + 1))[:, :, :GRID]


__all__ = ["GRID", "Cells", "encode_cells", "normalize", "places_of"]
