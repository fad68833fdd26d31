"""How much of the training loss's variance comes from the rates of masking: that part goes where a batch spreads them.

    python benchmarks/loss_variance.py           # writes loss_variance.json beside this file, some minutes

The embedded checkpoint, 16 conversations of the training split, the same weights throughout: what varies is rates and
masks alone. The variance of one example's loss has two parts, over the masks at a given rate, and over the rates. Of
the second, `stratified` rates remove what all examples share, f(p); `antithetic` ones as much of it as f(p) and
f(1 - p) cancel. Comparing the variances of whole batches directly takes far more draws: at low rates single tokens
weigh up to a thousand times.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from moving_shapes import MovingShapes
from vidlada_hf import VidLaDAForConditionalGeneration, VidLaDAProcessor
from vidlada_hf.hub.locate import EMBEDDED_CHECKPOINT
from vidlada_hf.modeling.fingerprints_vidlada import fingerprint_model
from vidlada_hf.modeling.objective_vidlada import diffusion_loss, draw_mask_probabilities, draw_masks
from vidlada_hf.training.data.collator import DiffusionCollator

BATCH, FRAMES, TYPES = 16, 8, ("color", "detail", "caption")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=256, help="of a batch, whose rates are one of each of 16 parts")
    parser.add_argument("--types", nargs="+", default=TYPES, help="of questions, each a batch of its own")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args(arguments)
    model = VidLaDAForConditionalGeneration.from_pretrained(EMBEDDED_CHECKPOINT).eval()
    processor = VidLaDAProcessor.from_pretrained(EMBEDDED_CHECKPOINT)
    collate, results = DiffusionCollator(processor, num_frames=FRAMES), {}
    for type in options.types:
        examples = MovingShapes("train", BATCH, FRAMES, (type,))
        conversations = [{"messages": e.as_question().messages(e.details.training_answer)} for e in examples]
        results[type] = split_variance(*draw_losses(model, collate(conversations), type, options.draws))
        print(type, {name: value for name, value in results[type].items() if name != "loss_by_rate"})
    setup = {"weights": fingerprint_model(model), "batch": BATCH, "frames": FRAMES, "draws": options.draws}
    options.output.write_text(json.dumps({"setup": setup, "types": results}, indent=1) + "\n")


@torch.no_grad()
def draw_losses(model: Any, batch: dict[str, Any], name: str, draws: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses of one batch and the rates that they were drawn with, one in each of as many equal parts of [0, 1] as
    there are examples: both (draws, examples)."""
    labels, generator = batch["labels"], torch.Generator().manual_seed(0)
    losses, drawn = [], []
    for _ in tqdm(range(draws), desc=name):
        rates = draw_mask_probabilities(len(labels), labels.device, generator, "stratified")
        masked = draw_masks(labels, rates, generator)
        logits = model(**batch, masked=masked, mask_probabilities=rates).masked_logits.split(masked.sum(-1).tolist())
        alone = zip(logits, labels.split(1), masked.split(1), rates.split(1), strict=True)
        losses.append(torch.stack([diffusion_loss(*example) for example in alone]))
        drawn.append(rates)
    return torch.stack(losses), torch.stack(drawn)


def split_variance(losses: torch.Tensor, rates: torch.Tensor) -> dict[str, Any]:
    """Of losses with these rates, both (draws, examples): "mean" and "variance" of an example's loss, the
    "loss_by_rate" of all examples, and the shares of the variance that "stratified" and "antithetic" rates remove."""
    examples = losses.shape[1]
    parts = (rates * examples).long().clamp(max=examples - 1)
    in_part = [losses[parts == part] for part in range(examples)]
    by_rate = torch.stack([each.mean() for each in in_part])
    noise = torch.stack([each.var() / len(each) for each in in_part]).mean()  # of by_rate, which adds to its variance
    variance, centered = losses.var(0).mean(), by_rate - by_rate.mean()
    return {
        "mean": round(losses.mean().item(), 4),
        "variance": variance.item(),
        "stratified": round(((centered.square().mean() - noise) / variance).item(), 4),
        "antithetic": round((-(centered * centered.flip(0)).mean() / variance).item(), 4),
        "loss_by_rate": [round(value, 4) for value in by_rate.tolist()],
    }


if __name__ == "__main__":
    main()
