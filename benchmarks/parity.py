"""How far our numbers are from those recorded from the official code, with the same weights.

    VIDLADA_GOLDEN=DIR python benchmarks/parity.py [--output benchmarks/parity.json]

Prints, and writes as JSON, the largest absolute difference of each quantity and the number of recorded generations
whose tokens are equal. It reads the recorded cases as the tests do.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.conftest import GOLDEN  # noqa: E402
from tests.golden_model import golden_inputs, golden_model, load_json, load_tensors, pixels  # noqa: E402
from tests.modeling.test_generation import GOLDEN_CASES, run_golden  # noqa: E402


@torch.no_grad()
def measure() -> dict[str, float | str]:
    """Quantity -> largest absolute difference, or "equal of all"."""
    model, vision = golden_model(GOLDEN), load_tensors(GOLDEN, "vision")
    tower = model.model.vision_tower(pixels(GOLDEN, "fa")).last_hidden_state
    pooled = model.model._encode(pixels(GOLDEN, "fa"), pool=True, vision_batch_size=None).flatten(1, 2)
    figures: dict[str, float | str] = {
        "vision tower": (tower - vision["fa.tower_out"]).abs().max().item(),
        "pooled video features": (pooled - vision["fa.pooled_bilinear"]).abs().max().item(),
    }
    for case in load_json(GOLDEN, "forward"):
        if case["name"] == "text":
            continue
        inputs = golden_inputs(GOLDEN, case | {"input_ids": case["prompt_input_ids"] + case["appended_ids"]})
        logits = model(**inputs, logits_to_keep=torch.tensor(case["positions"])).logits[0]
        recorded = load_tensors(GOLDEN, "forward")[f"{case['name']}.logits"]
        figures[f"logits, {case['name']}"] = (logits - recorded).abs().max().item()
    equal = 0
    strict = [name for name in GOLDEN_CASES if name != "quirk_stop_overwrites_decoded_tokens"]
    for name in strict:
        case, _, answer = run_golden(GOLDEN, name, official_stop_search=name.startswith("quirk_stop_list"))
        equal += answer == case["output_ids"]
    figures["generations with equal tokens"] = f"{equal} of {len(strict)}"
    return figures


def main(arguments: list[str] | None = None) -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "parity.json")
    args = parser.parse_args(arguments)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    figures = measure()
    for name, value in figures.items():
        print(f"{name:32s} {value if isinstance(value, str) else format(value, '.1e')}")
    args.output.write_text(json.dumps({"torch": torch.__version__, "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
