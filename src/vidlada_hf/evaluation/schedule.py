"""When a cache strategy refreshes what, printed and drawn, without running a model."""

from pathlib import Path
from typing import Any

import torch

from ..modeling.cache_strategies_vidlada import resolve_cache_strategy
from ..modeling.cache_vidlada import NoCache
from ..modeling.configuration_vidlada import VidLaDATextConfig
from ..modeling.generation_vidlada import VidLaDAGenerationConfig
from .cost_model import Sizes, TextShape, plan_work
from .decoding import read_cache

WIDTH = 64


def plan_refreshes(strategy: str, settings: VidLaDAGenerationConfig) -> dict[str, torch.Tensor]:
    """For each kind of rows which (step, group of layers, shallow first) are refreshed, bool.

    Args:
        strategy: a name, or a name, a colon and settings as JSON.
        settings: canvas, blocks and steps.

    Raises:
        ValueError: an unknown name or setting; a strategy that decides as it goes.
    """
    name, config = read_cache(strategy)
    plan = resolve_cache_strategy(name, config).schedule(settings.planned_steps())
    if plan is None:
        raise ValueError(
            f"{name!r} decides as it goes, so there is no schedule to show. Run it, and read what it refreshed from "
            "its object (`refreshed`)."
        )
    return plan


def plan_saving(strategy: str, settings: VidLaDAGenerationConfig, frames: int, rows: int) -> float | None:
    """How many times fewer operations than exact decoding, on paper: the 8B shape, 40 rows of text in the prompt.

    Args:
        frames, rows: of the video, and of each frame.

    Returns:
        None for a strategy that decides as it goes.

    Raises:
        ValueError: the strategy cannot serve this model or this video.
    """
    config = VidLaDATextConfig()
    shape, sizes = TextShape.of(config), Sizes(40, (rows,) * frames, settings.max_new_tokens)
    asked = resolve_cache_strategy(*read_cache(strategy))
    asked.check(config, sizes.layout())
    steps, flops = sizes.place(settings.planned_steps()), []
    for cache in (asked, NoCache()):
        work = plan_work(cache, shape, sizes, steps)
        if work is None:
            return None
        head = sum(2 * shape.hidden * shape.vocabulary * (step.span.stop - step.span.start) for step in steps)
        flops.append(head + sum(layer.flops(shape) for layers in work for layer in layers))
    return flops[1] / flops[0]


def print_refreshes(plan: dict[str, torch.Tensor]) -> str:
    """Lines of 64 steps: # where a group is refreshed, . where it is not; and how often."""
    names = [f"{kind} group {group}" for kind, refreshed in plan.items() for group in range(refreshed.shape[1])]
    marks = torch.cat(list(plan.values()), dim=1).T.tolist()
    steps, width = len(marks[0]), max(map(len, names))
    lines = []
    for start in range(0, steps, WIDTH):
        end = min(start + WIDTH, steps)
        lines.append(f"{'step':<{width}} {''.join(f'{i:<8}' for i in range(start, end, 8))}".rstrip())
        for name, row in zip(names, marks, strict=True):
            lines.append(f"{name:<{width}} {''.join('#' if mark else '.' for mark in row[start:end])}")
        lines.append("")
    for kind, refreshed in plan.items():
        counts = refreshed.sum(0).tolist()
        lines.append(f"{kind}: {', '.join(map(str, counts))} of {steps} steps, by group, shallow first")
    return "\n".join(lines)


def draw_refreshes(plan: dict[str, torch.Tensor], title: str, path: Path) -> Path:
    """A picture: a row a kind and group, shallow below, steps to the right; its suffix says the format."""
    from matplotlib.figure import Figure

    names, rows = [], []
    for kind, refreshed in plan.items():
        for group in range(refreshed.shape[1]):
            names.append(f"{kind}, group {group}")
            rows.append(refreshed[:, group].tolist())
    figure = Figure(figsize=(11, 1.2 + 0.35 * len(rows)), layout="constrained")
    axes: Any = figure.subplots()
    axes.pcolormesh(rows, cmap="Blues", vmin=0, vmax=1.3, edgecolors="white", linewidth=0.3)
    axes.set_yticks([i + 0.5 for i in range(len(names))], names, fontsize=8)
    axes.set_xlabel("step")
    axes.set_title(title, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


__all__ = ["draw_refreshes", "plan_refreshes", "plan_saving", "print_refreshes"]
