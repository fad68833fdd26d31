"""The tower's first lesson: what is in each cell of a frame.

The projector's output in a cell is trained to be classified by the text model's own embeddings of the color and shape
words, and to hold the place of the shape. So visual rows begin as words do, and the text model can read them at once.

Training never shows some combinations of color and shape, and a tower that learns "what is red is no circle" fails on
those that are held out (61 % of shapes right). Two things keep it from that: a color is only told from the others that
the shape is shown in, and a shape from those that the color is shown with; and half of the scenes lose their colors.
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from ...evaluation.moving_shapes import MovingShapes
from ...evaluation.moving_shapes.cells import label_cells
from ...evaluation.moving_shapes.rendering import render
from ...evaluation.moving_shapes.scenes import COLORS, SHAPES
from ..tasks import Task, accuracy
from .combinations import shown_together

GRID = 4
GRAY = -1
_FILLED_WEIGHT = 6.0  # most cells are empty
_PLACE_WEIGHT = 8.0


class Cells(Task):
    """Classifies every cell of single frames.

    Args:
        scenes: how many different scenes there are.
        frames: of each scene, at random moments.
    """

    def __init__(self, model: Any, processor: Any, seed: int = 0, scenes: int = 50_000, frames: int = 4) -> None:
        super().__init__(model, processor, seed)
        self.scenes, self.frames = scenes, frames
        hidden = model.config.text_config.hidden_size
        names = processor.tokenizer.convert_tokens_to_ids
        self.words = {"color": names(list(COLORS)), "shape": names(list(SHAPES))}
        # The last shape is "empty", the last two colors are "empty" and `GRAY`: possible with everything.
        self.register_buffer("shown", nn.functional.pad(shown_together(), (0, 1, 0, 2), value=True), persistent=False)
        self.heads["empty"] = nn.Linear(hidden, 2)
        self.heads["place"] = nn.Linear(hidden, 2)

    def dataset(self) -> Dataset:
        """Items: pixels uint8 (frames, 64, 64, 3) and labels (frames, 4, 4)."""
        return _Frames(self.scenes, self.frames, self.seed)

    def collate(self, examples: list[Any]) -> dict[str, torch.Tensor]:
        """Joins the frames of all scenes; pixels are normalized as the processor does. Gray cells have the color -1."""
        parts = (torch.from_numpy(np.concatenate(part)) for part in zip(*examples, strict=True))
        pixels, colors, shapes, places = parts
        return {"pixels": normalize(pixels), "color": colors, "shape": shapes, "place": places}

    def forward(self, pixels: torch.Tensor, **labels: torch.Tensor) -> dict[str, Any]:
        """Cross entropy of color and shape, squared error of the place in filled cells."""
        cells = encode_cells(self.model, pixels)
        filled = labels["shape"] < len(SHAPES)
        weight = torch.where(filled, _FILLED_WEIGHT, 1.0)
        empty = self.heads["empty"](cells)
        possible = {"color": self.shown.T[labels["shape"]][..., :-1], "shape": self.shown[labels["color"]]}
        loss, metrics = cells.new_zeros(()), {}
        for i, (name, ids) in enumerate(self.words.items()):
            words = self.model.get_input_embeddings().weight[ids]
            logits = torch.cat([cells @ words.T * cells.shape[-1] ** -0.5, empty[..., i : i + 1]], -1)
            entropy = nn.functional.cross_entropy(
                logits.masked_fill(~possible[name], -torch.inf).flatten(0, 2),
                labels[name].flatten(),
                reduction="none",
                ignore_index=GRAY,
            )
            loss = loss + (entropy * weight.flatten()).mean()
            metrics[f"{name}_accuracy"] = accuracy(logits, labels[name].masked_fill(~filled, -1))
        error = (self.heads["place"](cells) - labels["place"]).square()[filled].mean()
        metrics["place_error"] = error.item() ** 0.5
        said_empty = logits.argmax(-1) == logits.shape[-1] - 1
        metrics["empty_accuracy"] = said_empty[~filled].float().mean().item()
        return {"loss": loss + _PLACE_WEIGHT * error, "metrics": metrics}


class _Frames(Dataset):
    def __init__(self, scenes: int, frames: int, seed: int) -> None:
        self.shapes, self.frames, self.seed = MovingShapes("train", scenes, seed=seed), frames, seed

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        scene, _ = self.shapes.draw(index)
        times = np.sort(np.random.default_rng((self.seed, index)).random(self.frames))
        cells, pixels, color = label_cells(scene, times, GRID), render(scene, times), None
        if index % 2:
            channel = pixels.reshape(-1, 3).std(0).argmax()  # the one in which most can be seen
            pixels = np.repeat(pixels[..., channel : channel + 1], 3, axis=-1)
            color = np.full_like(cells.color, GRAY)
        return pixels, cells.color if color is None else color, cells.shape, places_of(cells.offset)


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


__all__ = ["GRAY", "GRID", "Cells", "encode_cells", "normalize", "places_of"]
