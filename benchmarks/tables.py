"""The tables of measurements in the documents, made from the JSON files beside this script.

    python benchmarks/tables.py [--check] [--results benchmarks] [FILE ...]

Writes between each pair of lines `<!-- table NAME -->` and `<!-- end -->` what NAME.json holds, or what `figures.py`
takes from several files; FILE is README.md, the embedded checkpoint's card and the pages of docs/ by default. With
--check nothing is written, and a file that is out of date is an error. A table whose results are not there yet is left
as it is.
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import figures  # noqa: E402
import gpu_tables  # noqa: E402
import mars_accuracy  # noqa: E402

from vidlada_hf.evaluation.report import costs_table, format_digits, markdown_table  # noqa: E402

DOCUMENTS = (
    HERE.parent / "README.md",
    HERE.parent / "src" / "vidlada_hf" / "checkpoints" / "vidlada-tiny" / "README.md",
    *sorted((HERE.parent / "docs").glob("*.md")),
)
BLOCK = re.compile(r"(<!-- table (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def speed(data: dict[str, Any]) -> str:
    """Runs of one setting."""
    setup = data["setup"]
    about = f"{setup['device']}, {setup['dtype']}, torch {setup['torch']}"
    threads = f", {setup['threads']} threads" if setup["threads"] else ""
    exact = f" Exact: {setup['exact']}." if "exact" in setup else ""
    rounds = min(len(entry["seconds"]) for entry in data["results"].values())
    timed = f", medians of {rounds} rounds" if rounds > 1 else ", one round" if rounds else ""
    about = f"{about}{threads}; {setup['frames']} frames, {setup['canvas']} tokens{timed}.{exact}"
    return f"{costs_table(data['results'])}\n\n{about}"


def accuracy(data: dict[str, Any]) -> str:
    """Set-ups beside exact decoding."""
    setup = data["setup"]
    canvas = f"{setup['frames']} frames, {setup['canvas']} tokens, {setup['steps']} steps"
    stop = {"answer": "once it has ended", "block": "once the block that it ends in is finished"}[setup["stop_after"]]
    about = f"an answer is left alone {stop}; differences in points; FLOPs: of a question that runs all steps."
    return f"{mars_accuracy.table(data)}\n\n{setup['questions']:,} questions, {canvas}; {about}"


def scaling(data: dict[str, Any]) -> str:
    """Seconds by frames."""
    by_frames = data["by_frames"]
    rows = []
    for name in ("exact", "mars"):
        rows.append([name, *(f"{format_digits(r[name]['summary']['seconds'])} s" for r in by_frames.values())])
    rows.append(["faster", *(f"{results['mars']['summary']['speedup']:.1f}x" for results in by_frames.values())])
    return markdown_table(["frames", *by_frames], rows)


def lmms_eval(data: dict[str, Any]) -> str:
    """Right answers by lmms-eval and by our own evaluation."""
    total, rows = data["setup"]["questions"], []
    for name, found in data["results"].items():
        scores = [f"{100 * found[key]:.1f} %" for key in ("lmms_eval", "own")]
        rows.append([name, *scores, f"{found['same_answers']} of {total}"])
    return markdown_table(["decoding, processes", "lmms-eval", "own evaluation", "same answers"], rows)


def batch_videos(data: dict[str, Any]) -> str:
    """Videos a second of each way, and how many times that of the first."""
    ways = data["ways"]
    slowest = next(iter(ways.values()))["videos_per_second"]
    rows = [
        [
            name,
            str(way["videos"]),
            f"{statistics.median(way['seconds']):.1f} s",
            format_digits(way["videos_per_second"]),
            f"{way['videos_per_second'] / slowest:.0f}x",
        ]
        for name, way in ways.items()
    ]
    return markdown_table(["", "videos", "time", "videos a second", "faster"], rows)


FROM_ONE_FILE: dict[str, Callable[[dict[str, Any]], str]] = {
    "batch_videos": batch_videos,
    "lmms_eval": lmms_eval,
    "mars_accuracy": accuracy,
    "mars_parts": accuracy,
    "mars_speed_cpu": speed,
    "mars_scaling": scaling,
}


def fill(text: str, results: Path) -> str:
    """The text with its tables made anew.

    Raises:
        SystemExit: a table of an unknown name.
    """

    def load(name: str) -> dict[str, Any]:
        return json.loads((results / f"{name}.json").read_text(encoding="utf-8"))

    def write(match: re.Match) -> str:
        begin, name, _, end = match.groups()
        known = [*FROM_ONE_FILE, *figures.TABLES]
        if name not in known:
            raise SystemExit(f"There is no table {name!r}: known are {', '.join(known)}.")
        try:
            new = figures.TABLES[name](load) if name in figures.TABLES else FROM_ONE_FILE[name](load(name))
        except (FileNotFoundError, gpu_tables.NotMeasured):
            return match[0]
        return f"{begin}{new}\n{end}"

    return BLOCK.sub(write, text)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*", metavar="FILE")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--results", type=Path, default=HERE)
    options = parser.parse_args(arguments)
    for path in options.files or DOCUMENTS:
        old = path.read_text(encoding="utf-8")
        new = fill(old, options.results)
        if options.check and new != old:
            raise SystemExit(f"{path} is out of date: run python benchmarks/tables.py")
        if not options.check:
            path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
