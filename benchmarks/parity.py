"""How far our numbers are from those recorded from the official code, with the same weights.

    [VIDLADA_GOLDEN=DIR] python benchmarks/parity.py [--output FILE]

Prints the largest absolute difference of each quantity and the number of recorded generations whose tokens are equal.
It reads the recorded cases as the tests do: the full recording where there is one, which also writes
benchmarks/parity.json, else the selection in `tests/golden`, which writes nothing unless a file is named.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.golden import GOLDEN, RECORDING  # noqa: E402
from tests.golden_model import (  # noqa: E402
    case_names,
    golden_inputs,
    golden_model,
    load_json,
    pixels,
    recorded_difference,
)
from tests.modeling.test_generation import run_golden  # noqa: E402

SOURCE = "the full recording" if RECORDING else "the selection in the repository"


@torch.no_grad()
def measure() -> dict[str, float | str]:
    """Quantity -> largest absolute difference, or "equal of all"."""
    model, frames = golden_model(GOLDEN), pixels(GOLDEN, "fa")
    tower = model.model.vision_tower(frames).last_hidden_state
    model.config.newline_position = "no_token"
    pooled = torch.stack(model.model.get_video_features(frames, [1] * len(frames)).pooler_output)
    differences = {
        "vision tower": recorded_difference(tower, GOLDEN, "vision", "fa.tower_out"),
        "pooled video features": recorded_difference(pooled, GOLDEN, "vision", "fa.pooled_bilinear"),
    }
    for case in load_json(GOLDEN, "forward"):
        if "frames" not in case:
            continue
        inputs = golden_inputs(GOLDEN, case | {"input_ids": case["prompt_input_ids"] + case["appended_ids"]})
        logits = model(**inputs, logits_to_keep=torch.tensor(case["positions"])).logits[0]
        name = case["name"]
        differences[f"logits, {name}"] = recorded_difference(logits, GOLDEN, "forward", f"{name}.logits")
    figures: dict[str, float | str] = {name: difference.abs().max().item() for name, difference in differences.items()}
    names = case_names("generate", strict=True)
    equal = sum(has_equal_tokens(name) for name in names)
    return figures | {"generations with equal tokens": f"{equal} of {len(names)}"}


def has_equal_tokens(name: str) -> bool:
    """Whether our answer is that of a recorded generation."""
    case, _, answer = run_golden(GOLDEN, name, official_stop_search=name.startswith("quirk_stop_list"))
    return answer == case["output_ids"]


def main(arguments: list[str] | None = None) -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = ROOT / "benchmarks" / "parity.json" if RECORDING else None
    parser.add_argument("--output", type=Path, default=default, help="JSON file of the figures")
    args = parser.parse_args(arguments)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    print(f"Measuring on {SOURCE}: {GOLDEN}")
    figures = measure()
    for name, value in figures.items():
        print(f"{name:32s} {value if isinstance(value, str) else format(value, '.1e')}")
    if args.output is not None:
        results = {"torch": torch.__version__, "measured_on": SOURCE, "figures": figures}
        args.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
