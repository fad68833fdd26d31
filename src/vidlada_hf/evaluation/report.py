"""Results for readers: figures of each set-up, Markdown tables, and a plot."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .decoding import DecodingSetup
from .statistics import speedup

MARKERS = "osD^vP*X"


def summarize_costs(entry: dict[str, Any], reference: dict[str, Any], questions: int = 1) -> dict[str, Any]:
    """The figures of a measured run.

    Args:
        entry, reference: results of `measure.count_each` and `time_in_turns`, as far as they are there.
        questions: how many were answered.

    Returns:
        "seconds" a question (median over the rounds), "speedup" over the reference, "tokens_per_second",
        "tokens_per_forward", "flops", "flops_planned" and "floor_seconds" a question, "flops_saving" (times less than
        the reference), bytes kept, live and at the peak. None: not known, or not yet.
    """
    counts, seconds = entry.get("counts", {}), entry.get("seconds", [])
    flops, reference_flops = counts.get("flops"), reference.get("counts", {}).get("flops")
    tokens, forwards = counts.get("tokens"), counts.get("forwards")
    total = statistics.median(seconds) if seconds else None
    each = {
        name: None if counts.get(name) is None else counts[name] / questions
        for name in ("flops", "flops_planned", "floor_seconds")
    }
    return {
        "seconds": total / questions if total else None,
        "speedup": round(speedup(seconds, entry["reference_seconds"]), 3) if seconds else None,
        "tokens_per_second": round(tokens / total, 3) if total and tokens else None,
        "tokens_per_forward": round(tokens / max(forwards, 1), 3) if tokens and forwards is not None else None,
        **each,
        "flops_saving": round(reference_flops / flops, 3) if flops and reference_flops else None,
        "kept_bytes": counts.get("kept_bytes"),
        "live_bytes": counts.get("live_bytes"),
        "peak_bytes": entry.get("peak_bytes"),
    }


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], align: str | None = None) -> str:
    """A table. `align`: a letter a column, "l" or "r"; by default all but the first are flush right."""
    marks = {"l": "---", "r": "---:"}
    rule = "|".join(marks[letter] for letter in align or "l" + "r" * (len(head) - 1))
    lines = ["|".join(f" {cell} " if cell else " " for cell in row) for row in (head, *rows)]
    return "\n".join(f"|{line}|" for line in [lines[0], rule, *lines[1:]])


def costs_table(results: dict[str, dict[str, Any]]) -> str:
    """A line for each run that has a summary of costs."""
    head = ["", "seconds", "faster", "tokens/s", "floor, s", "TFLOP", "FLOPs saved", "kept MB", "live MB"]
    rows = []
    for name, entry in results.items():
        s = entry["summary"]
        row = [name, format_digits(s["seconds"]), format_number(s["speedup"], "{:.1f}x")]
        row += [format_number(s["tokens_per_second"], "{:.1f}"), format_digits(s["floor_seconds"])]
        row += [format_number(s["flops"], "{:.3g}", 1e12), format_number(s["flops_saving"], "{:.1f}x")]
        rows.append(row + [format_number(s[key], "{:.0f}", 1e6) for key in ("kept_bytes", "live_bytes")])
    return markdown_table(head, rows)


def bench_table(data: dict[str, Any]) -> str:
    """Tables for a terminal, of time, work and answers, with a line for each set-up that `run_bench` has finished."""
    summaries = {name: entry["summary"] for name, entry in data["results"].items() if is_finished(entry)}
    is_judged = any(summary["accuracy"] for summary in summaries.values())
    time = [["set-up", "s", "floor s", "faster", "tokens/s", "tokens/forward"]]
    work = [["set-up", "GFLOP", "planned", "FLOPs saved", "kept MB", "live MB", "peak MB"]]
    answers = [["set-up", "same tokens", "same answers"]]
    answers[0] += ["right", "95 %", "lost/gained", "p", "worst type, points"] if is_judged else []
    for name, s in summaries.items():
        row = [name, f"{s['seconds']:.3g}", format_number(s["floor_seconds"], "{:.2g}"), f"{s['speedup']:.2f}x"]
        time.append([*row, f"{s['tokens_per_second']:.1f}", f"{s['tokens_per_forward']:.2f}"])
        row = [name, *(format_number(s[key], "{:.4g}", 1e9) for key in ("flops", "flops_planned"))]
        row += [f"{s['flops_saving']:.2f}x"]
        work.append(row + [format_number(s[f"{key}_bytes"], "{:.1f}", 1e6) for key in ("kept", "live", "peak")])
        row = [name, *(f"{100 * s['agreement'][key]:.1f} %" for key in ("tokens", "answers"))]
        answers.append(row + (_accuracy_cells(s["accuracy"]) if is_judged and s["accuracy"] else []))
    return "\n\n".join(map(text_table, (time, work, answers)))


def text_table(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns under each other, the first `left` flush left, the others right. Rows may be shorter than the first."""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [*map(str.ljust, row[:left], widths), *map(str.rjust, row[left:], widths[left:])]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def is_finished(entry: dict[str, Any]) -> bool:
    """Whether a set-up has answered all questions, and was timed and counted on some."""
    return "agreement" in entry.get("summary", {})


def _accuracy_cells(accuracy: dict[str, dict[str, Any]]) -> list[str]:
    of_all = accuracy["all"]
    worst = min(accuracy, key=lambda type: accuracy[type]["difference"])
    return [
        f"{100 * of_all['accuracy']:.1f} %",
        f"{100 * of_all['low']:.1f}-{100 * of_all['high']:.1f}",
        f"{of_all['lost']}/{of_all['gained']}",
        f"{of_all['p']:.2g}",
        f"{worst} {accuracy[worst]['difference']:+.1f}",
    ]


def format_number(value: float | None, form: str, unit: float = 1) -> str:
    """A number in some unit, a dash for None."""
    return "-" if value is None else form.format(value / unit)


def format_digits(value: float | None) -> str:
    """Three digits and no exponent; a dash for None."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def draw_bench(data: dict[str, Any], path: Path) -> Path:
    """Speed against accuracy (with its 95 % interval), or against token agreement where answers are not known.

    Args:
        data: what `run_bench` returned.
        path: of the picture; its suffix says the format. Returned.
    """
    from matplotlib.figure import Figure

    entries = [entry for entry in data["results"].values() if is_finished(entry)]
    is_judged = all(entry["summary"]["accuracy"] for entry in entries)
    names = [_names(entry) for entry in entries]
    caches, rules = (list(dict.fromkeys(part)) for part in zip(*names, strict=True))
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for entry, (cache, rule) in zip(entries, names, strict=True):
        height, interval = _height(entry["summary"], is_judged)
        marker, color = MARKERS[rules.index(rule) % len(MARKERS)], f"C{caches.index(cache) % 10}"
        axes.errorbar([entry["summary"]["speedup"]], [height], yerr=interval, marker=marker, color=color, capsize=3)
    for i, cache in enumerate(caches):
        axes.plot([], [], "s", color=f"C{i % 10}", label=cache)
    for i, rule in enumerate(rules):
        axes.plot([], [], MARKERS[i % len(MARKERS)], color="gray", label=rule)
    axes.set_xscale("log")
    axes.set_xlabel("times as fast as exact decoding, one token a step")
    axes.set_ylabel("right answers, %" if is_judged else "tokens as in exact decoding, %")
    setup = data["setup"]
    axes.set_title(f"{setup['questions']} questions, {setup['frames']} frames, {setup['device']}", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="best")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


def _names(entry: dict[str, Any]) -> tuple[str, str]:
    names = ("cache_strategy", "cache_config", "unmasking", "unmasking_value", "share_video")
    setup = DecodingSetup(**{name: entry[name] for name in names if name in entry})
    return setup.cache_name, setup.unmasking_name


def _height(summary: dict[str, Any], is_judged: bool) -> tuple[float, list[list[float]] | None]:
    """Percent, and how far the interval reaches below and above."""
    if not is_judged:
        return 100 * summary["agreement"]["tokens"], None
    of_all = summary["accuracy"]["all"]
    height = 100 * of_all["accuracy"]
    return height, [[height - 100 * of_all["low"]], [100 * of_all["high"] - height]]


__all__ = [
    "bench_table",
    "costs_table",
    "draw_bench",
    "format_digits",
    "format_number",
    "markdown_table",
    "summarize_costs",
    "text_table",
]
