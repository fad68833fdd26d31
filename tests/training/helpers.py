"""What the tests of several tasks need."""

import torch

from vidlada_hf.training.task import Task


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
