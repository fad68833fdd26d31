"""What the tests of several modules need: conversations made on the spot, tasks, recipes, and deaths."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset
from transformers import TrainerCallback

from tests.tiny_models import IMAGE_SIZE
from vidlada_hf.training import run
from vidlada_hf.training.recipe import Recipe
from vidlada_hf.training.schema import Count, Share
from vidlada_hf.training.task import Task

TINY = "tests.tiny_models:build_tiny"
DATA = {"source": f"{__name__}:BrightnessQuestions", "length": 40}
HEADS_TASK = f"{__name__}:BrightnessTask"


class BrightnessQuestions(Dataset):
    """Conversations about gray videos: in some the answer is a word, in others a sentence.

    Args:
        long: how many answers are sentences, 0..1.
    """

    in_order = True

    def __init__(self, length: Count, frames: Count = 2, long: Share = 0.0, seed: int = 0) -> None:
        self.length, self.frames, self.long, self.seed = length, frames, long, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng((self.seed, index))
        gray, is_long = int(rng.integers(256)), rng.random() < self.long
        video = np.full((self.frames, IMAGE_SIZE, IMAGE_SIZE, 3), gray, np.uint8)
        word = "light" if gray > 127 else "dark"
        asked = [{"type": "video", "video": video}, {"type": "text", "text": "How is it?"}]
        answer = f"It is {word} all the time." if is_long else word
        return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}


class BrightnessTask(Task):
    """Tells light frames from dark ones by the tower, with a head."""

    def __init__(self, model: Any, processor: Any, seed: int = 0, frames: Count = 8) -> None:
        super().__init__(model, processor, seed)
        self.frames = frames
        self.heads["light"] = nn.Linear(model.config.text_config.hidden_size, 2)

    def dataset(self) -> Dataset:
        rng = np.random.default_rng(self.seed)
        return [float(gray) for gray in rng.uniform(-1, 1, self.frames)]  # type: ignore[return-value]

    def collate(self, examples: list[float]) -> dict[str, torch.Tensor]:
        gray = torch.tensor(examples)
        pixels = gray[:, None, None, None].expand(-1, 3, IMAGE_SIZE, IMAGE_SIZE)
        return {"pixels": pixels, "light": (gray > 0).long()}

    def forward(self, *, pixels: torch.Tensor, light: torch.Tensor) -> dict[str, Any]:  # type: ignore[override]
        features = self.model.get_video_features(pixels).pooler_output[0].unflatten(0, (len(pixels), -1)).mean(1)
        return {"loss": nn.functional.cross_entropy(self.heads["light"](features), light)}


def losses_of(task: Task, batch: dict, steps: int, rate: float) -> list[float]:
    """Trains on one batch with AdamW; the loss before each step."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(task.parameters(), rate)
    losses = []
    for _ in range(steps):
        loss = task(**batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def recipe(folder: Path, **arguments: Any) -> Recipe:
    """Two stages of a few steps: one of a task with a head, then the objective itself."""
    common = {"per_device_train_batch_size": 2, "report_to": [], "disable_tqdm": True, "save_steps": 2} | arguments
    return Recipe.from_dict(
        {
            "model": TINY,
            "output_dir": str(folder),
            "stages": [
                {
                    "name": "vision",
                    "task": HEADS_TASK,
                    "rates": {"tower": 1e-3, "projector": 1e-3, "text": 0},
                    "arguments": common | {"max_steps": 2},
                },
                {
                    "name": "answers",
                    "options": {"data": DATA},
                    "rates": {"tower": 0, "projector": 0, "text": 1e-3, "muon": 1e-3},
                    "arguments": common | {"max_steps": 4, "logging_steps": 2},
                },
            ],
        }
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


class Killed(Exception):
    """Stands for a kill."""


class KillAt(TrainerCallback):
    """Dies at the end of a step, in a run of four if `steps` is 4."""

    def __init__(self, step: int, steps: int | None = None) -> None:
        self.step, self.steps = step, steps

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step and self.steps in (None, state.max_steps):
            raise Killed


@contextmanager
def dying(monkeypatch) -> Iterator[None]:
    """Trainers die in their third step of four, between two checkpoints."""
    usual = run.DiffusionTrainer

    def doomed(*args: Any, callbacks: Any = (), **kwargs: Any) -> Any:
        return usual(*args, callbacks=[*callbacks, KillAt(3, steps=4)], **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(run, "DiffusionTrainer", doomed)
        yield
