"""Time against the number of frames, for exact decoding and for MARS-Cache.

    python benchmarks/mars_scaling.py [--device cpu] [--threads 2] [--output benchmarks/mars_scaling.json] [--quick]

The model of mars_speed_cpu.py and videos of 8, 16, 32 and 64 frames; draws mars_scaling.png beside the JSON. Of exact
decoding 2 of the 128 equal steps are run, and multiplied; the JSON says so. Three rounds for each number of frames. An
interrupted run goes on where it was. About 20 minutes on two cores.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from vidlada_hf.evaluation.bench import describe_setup, measure_costs
from vidlada_hf.evaluation.cost_model import Machine
from vidlada_hf.evaluation.decoding import EXACT, DecodingSetup
from vidlada_hf.evaluation.measure import TimedDecoding, measure_machine
from vidlada_hf.evaluation.random_model import (
    SMALL_TEXT,
    TINY_TEXT,
    build_random_model,
    encode_random_question,
    full_canvas_runner,
)
from vidlada_hf.evaluation.record import Record
from vidlada_hf.evaluation.report import costs_table

FRAMES, CANVAS, BLOCK, EXACT_STEPS, ROUNDS = (8, 16, 32, 64), 128, 32, 2, 3


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--quick", action="store_true", help="a tiny model, to see whether the script runs")
    options = parser.parse_args(arguments)

    torch.set_num_threads(options.threads)
    device, quick = torch.device(options.device), options.quick
    model = build_random_model(TINY_TEXT if quick else SMALL_TEXT, device, torch.float32, grid=4 if quick else 27)
    numbers, canvas, block = ((3, 6), 8, 4) if quick else (FRAMES, CANVAS, BLOCK)
    setup = describe_setup(full_canvas_runner(model, 0, canvas, block), "random weights") | {
        "frames": list(numbers),
        "tokens_per_frame": model.model.tokens_per_frame,
        "exact": f"{EXACT_STEPS} of {canvas} equal steps were run; seconds and operations are multiplied by "
        f"{canvas / EXACT_STEPS:g}",
    }
    record = Record(options.output, setup)
    machine = Machine(**record.data.setdefault("machine", asdict(measure_machine(device, torch.float32, quick))))
    for frames in numbers:
        runner, batches = full_canvas_runner(model, frames, canvas, block), [encode_random_question(model, frames)]
        runs = {
            "exact": TimedDecoding(runner, batches, EXACT, machine, EXACT_STEPS),
            "mars": TimedDecoding(runner, batches, DecodingSetup("mars"), machine),
        }
        results = record.data.setdefault("by_frames", {}).setdefault(str(frames), {})
        measure_costs(runs, "exact", 2 if quick else ROUNDS, results, record.save)
        print(f"\n{frames} frames\n{costs_table(results)}")
    print(f"\nDrawn in {draw(record.data, options.output.with_suffix('.png'))}.")


def draw(data: dict, path: Path) -> Path:
    """Seconds over frames, both logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    frames = [int(number) for number in data["by_frames"]]
    for name in ("exact", "mars"):
        seconds = [results[name]["summary"]["seconds"] for results in data["by_frames"].values()]
        axes.plot(frames, seconds, "o-", label=name)
        for x, y in zip(frames, seconds, strict=True):
            axes.annotate(f"{y:.3g} s", (x, y), textcoords="offset points", xytext=(4, 5), fontsize=7)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(frames, [str(number) for number in frames])
    axes.set_xlabel("frames")
    axes.set_ylabel("seconds for an answer")
    axes.set_title(f"{data['setup']['canvas']} tokens, {data['setup']['device']}", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    return path


if __name__ == "__main__":
    main()
