"""How much faster MARS-Cache is than recomputing everything, and than Fast-dLLM's cache, on a CPU with float32.

    python benchmarks/mars_speed_cpu.py [--threads 2] [--output benchmarks/mars_speed_cpu.json] [--quick]

Random weights (d 512, 8 layers, 8 heads, MLP 1536, a vocabulary of 1,024), a video of 32 frames x 210 rows and 40 rows
of text, 128 tokens in 128 steps, blocks of 32. Contenders take turns, five rounds. The steps of exact decoding are all
equal: 16 of the 128 are run, and multiplied by 8; the JSON says so. An interrupted run goes on where it was: delete the
file to measure anew. Nothing else should run on the machine. About half an hour on two cores.

"mars-adaptive" is left out: when it refreshes depends on what the weights say, and random ones say nothing.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from vidlada_hf import MARSCacheConfig
from vidlada_hf.evaluation.bench import describe_setup
from vidlada_hf.evaluation.cost_model import Machine
from vidlada_hf.evaluation.decoding import EXACT, DecodingSetup
from vidlada_hf.evaluation.random_model import (
    SMALL_TEXT,
    TINY_TEXT,
    build_random_model,
    random_denoiser,
    random_question,
)
from vidlada_hf.evaluation.speed import TimedDecoding, measure_runs, speed_table
from vidlada_hf.evaluation.timing import Record, measure_machine

FRAMES, CANVAS, BLOCK, EXACT_STEPS, ROUNDS = 32, 128, 32, 16, 5


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--quick", action="store_true", help="a tiny model, to see whether the script runs")
    options = parser.parse_args(arguments)

    torch.set_num_threads(options.threads)
    cpu, quick = torch.device("cpu"), options.quick
    model = build_random_model(TINY_TEXT if quick else SMALL_TEXT, cpu, torch.float32, grid=4 if quick else 27)
    frames, canvas, block = (4, 8, 4) if quick else (FRAMES, CANVAS, BLOCK)
    denoiser, encoded = random_denoiser(model, frames, canvas, block), random_question(model, frames)
    steps_run = 2 if quick else EXACT_STEPS
    setup = describe_setup(denoiser, "random weights") | {
        "tokens_per_frame": model.model.tokens_per_frame,
        "prompt_rows": encoded.inputs["input_ids"].shape[1],
        "exact": f"{steps_run} of {canvas} equal steps were run; seconds and operations are multiplied by "
        f"{canvas / steps_run:g}",
    }
    record = Record(options.output, setup)
    machine = record.data.setdefault("machine", asdict(measure_machine(cpu, torch.float32, quick)))
    # Fast-dLLM's cache recomputes everything when a block is entered; and once more as often as MARS-Cache refreshes
    # the visual rows of its deepest layers.
    deepest = min(interval for interval in MARSCacheConfig().visual_intervals if interval is not None)
    contenders = {
        "exact": EXACT,
        "mars": DecodingSetup("mars"),
        "mars, first step chunked": DecodingSetup("mars", {"first_step": "chunked"}),
        f"dual, all rows every {deepest} steps": DecodingSetup("dual", {"refresh_interval": deepest}),
        "dual": DecodingSetup("dual"),
    }
    runs = {
        name: TimedDecoding(denoiser, encoded, contender, Machine(**machine), steps_run if name == "exact" else None)
        for name, contender in contenders.items()
    }
    found = record.data.setdefault("contenders", {})
    measure_runs(runs, "exact", 2 if quick else ROUNDS, found, record.save)
    record.data["checks"] = check(found, f"dual, all rows every {deepest} steps")
    record.save()
    print(speed_table(found))
    for name, value in record.data["checks"].items():
        print(f"{name}: {value}")


def check(found: dict, dual: str) -> dict[str, float]:
    """The figures that this is about, as ratios."""
    exact, mars = found["exact"]["summary"], found["mars"]["summary"]
    allowed = exact["live_bytes"] + mars["kept_bytes"]
    return {
        "seconds, exact / mars": mars["speedup"],
        "seconds, dual refreshed as often / mars": round(found[dual]["summary"]["seconds"] / mars["seconds"], 3),
        "seconds, dual / mars": round(found["dual"]["summary"]["seconds"] / mars["seconds"], 3),
        "bytes at the peak, mars / (exact + what mars keeps)": round(mars["live_bytes"] / allowed, 3),
    }


if __name__ == "__main__":
    main()
