"""How much the training loss of one batch varies with the masks that are drawn, for each way of drawing the rates.

    python benchmarks/loss_variance.py           # writes loss_variance.json beside this file, some minutes

The embedded checkpoint, one batch of 16 conversations of the training split (colors and descriptions), 120 draws each,
the same weights throughout: what varies is rates and masks alone.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import get_args

import torch
from tqdm import tqdm

from vidlada_hf import VidLaDAForConditionalGeneration, VidLaDAProcessor
from vidlada_hf.asking import EMBEDDED_CHECKPOINT
from vidlada_hf.evaluation.moving_shapes import MovingShapes
from vidlada_hf.evaluation.moving_shapes.answering import as_messages
from vidlada_hf.modeling.objective_vidlada import TimeSampling
from vidlada_hf.training.collator import DiffusionCollator

BATCH, FRAMES, TYPES = 16, 8, ("detail", "color")


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=120, help="of each way")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args(arguments)
    model = VidLaDAForConditionalGeneration.from_pretrained(EMBEDDED_CHECKPOINT).eval()
    processor = VidLaDAProcessor.from_pretrained(EMBEDDED_CHECKPOINT)
    examples = MovingShapes("train", BATCH, FRAMES, TYPES)
    messages = [{"messages": as_messages(example, example.details.taught)} for example in examples]
    batch = DiffusionCollator(processor, num_frames=FRAMES)(messages)
    losses: dict[str, list[float]] = {}
    with torch.no_grad():
        for sampling in get_args(TimeSampling):
            generator = torch.Generator().manual_seed(0)
            losses[sampling] = [
                model(**batch, time_sampling=sampling, generator=generator).loss.item()
                for _ in tqdm(range(options.draws), desc=sampling)
            ]
    found = {
        sampling: {"mean": round(statistics.fmean(drawn), 4), "variance": statistics.variance(drawn)}
        for sampling, drawn in losses.items()
    }
    setup = {"batch": BATCH, "frames": FRAMES, "types": TYPES, "draws": options.draws}
    options.output.write_text(json.dumps({"setup": setup, "loss": found}, indent=1) + "\n")
    for sampling, figures in found.items():
        print(f"{sampling}: mean {figures['mean']}, variance {figures['variance']:.3g}")


if __name__ == "__main__":
    main()
