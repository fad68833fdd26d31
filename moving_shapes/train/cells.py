"""Cell labels: the first stage of training, which teaches the tower the content of each cell of a frame.

The projector's output in a cell is classified by the text model's own embeddings of the color and shape words, and
holds the position of the shape. So visual tokens are encoded as words are, and the text model can use them at once.

Training does not contain some combinations of color and shape, and a tower that learns "what is red is no circle" fails
on these (61 % of shapes right). Two things prevent it. A color competes only with the colors that training combines
with the shape, and a shape only with the shapes that training combines with the color. And half of the frames show the
named shapes in colors without a name, and one of six the named colors on shapes without a name.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from vidlada_hf.training.schema import Count
from vidlada_hf.training.task import Task, accuracy

from ..scenes.appearance import draw_appearance
from ..scenes.cells import label_cells
from ..scenes.rendering import PALETTE, UNNAMED_SHAPES, render
from ..scenes.sampling import CLEARANCE, RADII
from ..scenes.scene import COLORS, SHAPES, MovingShape, Scene, Span
from ..scenes.splits import get_split
from ..scenes.timelines import END, Role
from .combinations import training_combinations

GRID = 4
UNNAMED = -1  # the label of a color or a shape without a name
_FILLED_WEIGHT = 6.0  # most cells are empty
_POSITION_WEIGHT = 8.0
_COUNTS = (1, 2, 3, 4, 4, 4, 4, 4)  # shapes in a scene: a crowded frame teaches more in the same time


class CellLabelsTask(Task):
    """Classifies each cell of single frames.

    Args:
        model, processor, seed: as of `Task`.
        scenes: how many different frames there are.
    """

    in_training: torch.Tensor

    def __init__(self, model: Any, processor: Any, seed: int = 0, scenes: Count = 200_000) -> None:
        super().__init__(model, processor, seed)
        self.scenes = scenes
        hidden = model.config.text_config.hidden_size
        ids = processor.tokenizer.convert_tokens_to_ids
        self.words = {"color": ids(list(COLORS)), "shape": ids(list(SHAPES))}
        # The last two classes are "empty" and `UNNAMED`, which go with all others.
        combinations = nn.functional.pad(training_combinations(), (0, 2, 0, 2), value=True)
        self.register_buffer("in_training", combinations, persistent=False)
        self.heads["empty"] = nn.Linear(hidden, 2)
        self.heads["position"] = nn.Linear(hidden, 2)

    def dataset(self) -> Dataset:
        """Items: pixels uint8 (1, 64, 64, 3), colors and shapes int64 (1, 4, 4), positions float32 (1, 4, 4, 2)."""
        return _Frames(self.scenes, self.seed)

    def collate(self, examples: list[Any]) -> dict[str, torch.Tensor]:
        """Joins the frames of all scenes, normalized as the processor does; `UNNAMED` labels what has no name."""
        pixels, colors, shapes, positions = (
            torch.from_numpy(np.concatenate(part)) for part in zip(*examples, strict=True)
        )
        return {"pixels": normalize_pixels(pixels), "color": colors, "shape": shapes, "position": positions}

    def forward(self, *, pixels: torch.Tensor, **labels: torch.Tensor) -> dict[str, Any]:  # type: ignore[override]
        """Cross entropy of color and shape, squared error of the position in filled cells."""
        cells = encode_cells(self.model, pixels)
        is_filled = labels["shape"] != len(SHAPES)
        weight = torch.where(is_filled, _FILLED_WEIGHT, 1.0)
        empty = self.heads["empty"](cells)
        possible = {
            "color": self.in_training.T[labels["shape"]][..., :-1],
            "shape": self.in_training[labels["color"]][..., :-1],
        }
        loss, metrics = cells.new_zeros(()), {}
        for i, (name, ids) in enumerate(self.words.items()):
            embeddings: Any = self.model.get_input_embeddings().weight
            words = embeddings[ids]
            logits = torch.cat([cells @ words.T * cells.shape[-1] ** -0.5, empty[..., i : i + 1]], -1)
            entropy = nn.functional.cross_entropy(
                logits.masked_fill(~possible[name], -torch.inf).flatten(0, 2),
                labels[name].flatten(),
                reduction="none",
                ignore_index=UNNAMED,
            )
            loss = loss + (entropy * weight.flatten()).mean()
            metrics[f"{name}_accuracy"] = accuracy(logits, labels[name].masked_fill(~is_filled, -1))
        error = (self.heads["position"](cells) - labels["position"]).square()[is_filled].mean()
        metrics["position_error"] = error.item() ** 0.5
        predicts_empty = logits.argmax(-1) == logits.shape[-1] - 1
        metrics["empty_accuracy"] = predicts_empty[~is_filled].float().mean().item()
        return {"loss": loss + _POSITION_WEIGHT * error, "metrics": metrics}


class _Frames(Dataset):
    def __init__(self, scenes: int, seed: int) -> None:
        self.scenes, self.seed = scenes, seed

    def __len__(self) -> int:
        return self.scenes

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        rng = np.random.default_rng((self.seed, index))
        scene, times = draw_still_scene(rng), np.zeros(1)
        cells = label_cells(scene, times, GRID)
        is_filled, color, shape, palette = cells.identity >= 0, cells.color, cells.shape, None
        if index % 6 in (1, 2, 3):
            color, palette = np.where(is_filled, UNNAMED, color), draw_unnamed_colors(rng)
        elif index % 6 == 4:
            shape = np.where(is_filled, UNNAMED, shape)
            unnamed = [replace(s, shape=UNNAMED_SHAPES[rng.integers(len(UNNAMED_SHAPES))]) for s in scene.shapes]
            scene = replace(scene, shapes=tuple(unnamed))
        return render(scene, times, palette=palette), color, shape, frame_positions(cells.offset)


def draw_still_scene(rng: np.random.Generator) -> Scene:
    """A scene of the training split without events: each of its frames shows all shapes."""
    split, count = get_split("train"), int(rng.choice(_COUNTS))
    centers: list[np.ndarray] = []
    while len(centers) < count:
        center = rng.uniform(0.14, 0.86, 2)
        if all(np.abs(center - other).max() >= CLEARANCE for other in centers):
            centers.append(center)
        elif rng.random() < 0.02:  # there may be no room left: begin again
            centers.clear()
    roles = draw_appearance(rng, split, [Role(((0, END),), "still")] * count)
    shapes = []
    for role, (x, y) in zip(roles, centers, strict=True):
        span = Span(0.0, 1.0, (x, y), (x, y))
        shapes.append(MovingShape(role.color, role.shape, float(rng.uniform(*RADII)), (span,), "still"))
    background = split.backgrounds[rng.integers(len(split.backgrounds))]
    return Scene(split.name, "steady", tuple(shapes), background, int(rng.integers(2**31)))


def draw_unnamed_colors(rng: np.random.Generator) -> np.ndarray:
    """Saturated colors, each far from all that have a name: float64 (8, 3), 0..255."""
    colors: list[np.ndarray] = []
    named = np.array(list(PALETTE.values()))
    while len(colors) < len(COLORS):
        color = rng.uniform(5, 250, 3)
        if np.ptp(color) > 60 and np.linalg.norm(named - color, axis=1).min() > 55:
            colors.append(color)
    return np.stack(colors)


def frame_positions(offset: np.ndarray) -> np.ndarray:
    """Offsets within cells (..., 4, 4, 2) -> positions in the frame, -1..1, float32 of the same shape."""
    steps = np.arange(GRID, dtype=np.float32) + 0.5
    centers = np.stack(np.meshgrid(steps, steps), -1)  # x, y
    return (centers + offset) / GRID * 2 - 1


def normalize_pixels(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 (frames, side, side, 3) -> float32 (frames, 3, side, side) in -1..1, as the video processor makes them."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def encode_cells(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Pixels (frames, 3, side, side) -> features of the cells (frames, 4, 4, hidden), without newlines."""
    tokens = model.get_video_features(pixels, vision_batch_size=None).pooler_output[0]
    return tokens.unflatten(0, (len(pixels), GRID, GRID + 1))[:, :, :GRID]


__all__ = ["GRID", "CellLabelsTask", "encode_cells", "frame_positions", "normalize_pixels"]
