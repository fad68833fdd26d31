"""How much faster MARS-Cache is than recomputing everything, and than Fast-dLLM's cache, on a CPU with float32.

    python benchmarks/mars_speed_cpu.py [--threads 2] [--output benchmarks/mars_speed_cpu.json] [--quick]

Random weights (d 512, 8 layers, 8 heads, MLP 1536, a vocabulary of 1,024), a video of 32 frames x 210 tokens and 40
tokens of text, 128 new tokens in 128 steps, blocks of 32. Set-ups take turns, five rounds. The steps of exact decoding
are all equal: 16 of the 128 are run, and multiplied by 8; the JSON says so. An interrupted run goes on where it was:
delete the file to measure anew. Nothing else should run on the machine. About half an hour on two cores.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from vidlada_hf import MARSCacheConfig
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

FRAMES, CANVAS, BLOCK, EXACT_STEPS, ROUNDS = 32, 128, 32, 16, 5
# Fast-dLLM's cache recomputes everything when a block is entered; and once more as often as MARS-Cache refreshes the
# visual tokens of its deepest layers.
DEEPEST = min(interval for interval in MARSCacheConfig().visual_intervals if interval is not None)
DUAL_AS_OFTEN = f"dual, all tokens every {DEEPEST} steps"
SETUPS = {
    "exact": EXACT,
    "mars": DecodingSetup("mars"),
    "mars, first step chunked": DecodingSetup("mars", {"first_step": "chunked"}),
    DUAL_AS_OFTEN: DecodingSetup("dual", {"refresh_interval": DEEPEST}),
    "dual": DecodingSetup("dual"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--quick", action="store_true", help="a tiny model, to see whether the script runs")
    options = parser.parse_args(arguments)

    torch.set_num_threads(options.threads)
    cpu, quick = torch.device("cpu"), options.quick
    model = build_random_model(TINY_TEXT if quick else SMALL_TEXT, cpu, torch.float32, grid=4 if quick else 27)
    frames, canvas, block, exact_steps = (4, 8, 4, 2) if quick else (FRAMES, CANVAS, BLOCK, EXACT_STEPS)
    runner, batch = full_canvas_runner(model, frames, canvas, block), encode_random_question(model, frames)
    setup = describe_setup(runner, "random weights") | {
        "tokens_per_frame": model.model.tokens_per_frame,
        "prompt_tokens": batch.inputs["input_ids"].shape[1],
        "exact": f"{exact_steps} of {canvas} equal steps were run; seconds and operations are multiplied by "
        f"{canvas / exact_steps:g}",
    }
    record = Record(options.output, setup)
    machine = Machine(**record.data.setdefault("machine", asdict(measure_machine(cpu, torch.float32, quick))))
    runs = {
        name: TimedDecoding(runner, [batch], setup, machine, exact_steps if name == "exact" else None)
        for name, setup in SETUPS.items()
    }
    results = record.data.setdefault("results", {})
    measure_costs(runs, "exact", 2 if quick else ROUNDS, results, record.save)
    record.data["checks"] = check(results)
    record.save()
    print(costs_table(results))
    for name, value in record.data["checks"].items():
        print(f"{name}: {value}")


def check(results: dict) -> dict[str, float]:
    """The figures that this is about, as ratios."""
    exact, mars, dual, often = (results[name]["summary"] for name in ("exact", "mars", "dual", DUAL_AS_OFTEN))
    allowed = exact["live_bytes"] + mars["kept_bytes"]
    return {
        "seconds, exact / mars": mars["speedup"],
        "seconds, dual refreshed as often / mars": round(often["seconds"] / mars["seconds"], 3),
        "seconds, dual / mars": round(dual["seconds"] / mars["seconds"], 3),
        "bytes at the peak, mars / (exact + what mars keeps)": round(mars["live_bytes"] / allowed, 3),
    }


if __name__ == "__main__":
    main()
