"""When a cache strategy refreshes what, printed and drawn, without running a model."""

from pathlib import Path
from typing import Any

import torch

from ..modeling.cache_vidlada import DenoisingCache, NoCache
from ..modeling.configuration_vidlada import VidLaDATextConfig
from ..modeling.generation_config_vidlada import VidLaDAGenerationConfig
from .cost_model import Sizes, TextShape, plan_work

LINE_STEPS = 64
PROMPT_TEXT_TOKENS = 40


def plan_refreshes(cache: DenoisingCache, settings: VidLaDAGenerationConfig) -> dict[str, torch.Tensor]:
    """For each kind of tokens which (step, group of layers, shallow first) are refreshed, bool.

    Args:
        settings: canvas, blocks and steps.

    Raises:
        ValueError: a strategy that decides as it goes.
    """
    plan = cache.schedule(settings.planned_steps())
    if plan is None:
        raise ValueError(f"{type(cache).__name__} decides as it goes, so there is no schedule to show.")
    return plan


def plan_saving(
    cache: DenoisingCache, settings: VidLaDAGenerationConfig, frames: int, tokens_per_frame: int
) -> float | None:
    """How many times fewer operations than exact decoding, on paper: the 8B shape, 40 tokens of text in the prompt.

    Returns:
        None for a strategy that the cost model does not know.

    Raises:
        ValueError: the strategy cannot serve this model or this video.
    """
    config = VidLaDATextConfig()
    shape = TextShape.of(config)
    sizes = Sizes(PROMPT_TEXT_TOKENS, (tokens_per_frame,) * frames, settings.max_new_tokens)
    cache.check(config, sizes.layout())
    steps, flops = sizes.steps_in_sequence(settings.planned_steps()), []
    for strategy in (cache, NoCache()):
        work = plan_work(strategy, shape, sizes, steps)
        if work is None:
            return None
        head = sum(2 * shape.hidden * shape.vocabulary * (step.span.stop - step.span.start) for step in steps)
        flops.append(head + sum(layer.flops(shape) for layers in work for layer in layers))
    return flops[1] / flops[0]


def format_refreshes(plan: dict[str, torch.Tensor]) -> str:
    """Lines of 64 steps: # where a group is refreshed, . where it is not; and how often."""
    names = [f"{kind} group {group}" for kind, refreshed in plan.items() for group in range(refreshed.shape[1])]
    marks = torch.cat(list(plan.values()), dim=1).T.tolist()
    steps, width = len(marks[0]), max(map(len, names))
    lines = []
    for start in range(0, steps, LINE_STEPS):
        end = min(start + LINE_STEPS, steps)
        lines.append(f"{'step':<{width}} {''.join(f'{i:<8}' for i in range(start, end, 8))}".rstrip())
        for name, row in zip(names, marks, strict=True):
            lines.append(f"{name:<{width}} {''.join('#' if mark else '.' for mark in row[start:end])}")
        lines.append("")
    for kind, refreshed in plan.items():
        counts = refreshed.sum(0).tolist()
        lines.append(f"{kind}: {', '.join(map(str, counts))} of {steps} steps, by group, shallow first")
    return "\n".join(lines)


def draw_refreshes(plan: dict[str, torch.Tensor], title: str, path: Path) -> Path:
    """A picture: a row a kind and group, shallow below, steps to the right.

    Args:
        path: its suffix says the format; without one it becomes .png.

    Returns:
        Where the picture is.
    """
    from matplotlib.figure import Figure

    path = path if path.suffix else path.with_suffix(".png")
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


__all__ = ["draw_refreshes", "format_refreshes", "plan_refreshes", "plan_saving"]
