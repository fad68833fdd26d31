"""A picture of a benchmark: how fast each contender is, and how good."""

from pathlib import Path
from typing import Any

MARKERS = "osD^vP*X"


def draw_bench(data: dict[str, Any], path: Path) -> Path:
    """Speed against accuracy (with its 95 % interval), or against token agreement where answers are not known.

    Args:
        data: what `run_bench` returned.
        path: of the picture; its suffix says the format.

    Returns:
        The path.
    """
    from matplotlib.figure import Figure

    entries = [entry for entry in data["contenders"].values() if "summary" in entry]
    known = all(entry["summary"]["accuracy"] for entry in entries)
    caches = list(dict.fromkeys(_label(entry["cache"], entry["settings"]) for entry in entries))
    rules = list(dict.fromkeys(_label(entry["unmasking"], entry["bound"]) for entry in entries))
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for entry in entries:
        summary = entry["summary"]
        cache, rule = _label(entry["cache"], entry["settings"]), _label(entry["unmasking"], entry["bound"])
        of = summary["accuracy"]["all"] if known else None
        height = 100 * (of["accuracy"] if of else summary["agreement"]["tokens"])
        spread = [[height - 100 * of["low"]], [100 * of["high"] - height]] if of else None
        marker = MARKERS[rules.index(rule) % len(MARKERS)]
        color = f"C{caches.index(cache) % 10}"
        axes.errorbar([summary["speedup"]], [height], yerr=spread, marker=marker, color=color, capsize=3)
    for i, cache in enumerate(caches):
        axes.plot([], [], "s", color=f"C{i % 10}", label=cache)
    for i, rule in enumerate(rules):
        axes.plot([], [], MARKERS[i % len(MARKERS)], color="gray", label=rule)
    axes.set_xscale("log")
    axes.set_xlabel("times as fast as exact decoding, one token a step")
    axes.set_ylabel("right answers, %" if known else "tokens as in exact decoding, %")
    setup = data["setup"]
    axes.set_title(f"{setup['questions']} questions, {setup['frames']} frames, {setup['device']}", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="best")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def _label(name: str, detail: Any) -> str:
    return f"{name} {detail}" if detail else name


__all__ = ["draw_bench"]
