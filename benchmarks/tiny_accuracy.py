"""What the embedded checkpoint answers right, by question type, and what of it is left when the video is changed.

    python benchmarks/tiny_accuracy.py [--questions 2100] [--output benchmarks/tiny_accuracy.json]

Test split: combinations and backgrounds that training never showed. Each part adds its own entry to the JSON and is
skipped if it is there, so an interrupted run goes on: delete the file to measure anew.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
import transformers

from vidlada_hf import VidLaDAForConditionalGeneration, VidLaDAProcessor
from vidlada_hf.asking import EMBEDDED_CHECKPOINT
from vidlada_hf.evaluation.moving_shapes.measuring import as_plain, load_examples, measure
from vidlada_hf.evaluation.moving_shapes.priors import measure_prior

# name -> (frames, change of the video, part of the questions, options of the examples)
PARTS = {
    "8 frames": (8, "none", 1.0, {}),
    "16 frames": (16, "none", 0.5, {}),
    "32 frames": (32, "none", 0.5, {}),
    "8 frames, from mp4": (8, "none", 0.5, {"video_folder": "clips"}),
    "8 frames, gray video": (8, "gray", 0.5, {}),
    "8 frames, another scene's video": (8, "other", 0.5, {}),
    "8 frames, shuffled": (8, "shuffled", 0.5, {}),
}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(EMBEDDED_CHECKPOINT))
    parser.add_argument("--split", default="test")
    parser.add_argument("--questions", type=int, default=2100, help="of all types in turn")
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()

    processor = VidLaDAProcessor.from_pretrained(options.model)
    model = VidLaDAForConditionalGeneration.from_pretrained(options.model).eval()
    done = json.loads(options.output.read_text()) if options.output.is_file() else {}
    done["setup"] = {
        "split": options.split,
        "generation": model.generation_config.to_dict(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, (frames, control, share, extra) in PARTS.items():
            if name in done:
                continue
            extra = {key: str(Path(folder) / value) for key, value in extra.items()}
            examples = load_examples(options.split, round(options.questions * share), frames, **extra)
            began = time.perf_counter()
            scores = measure(model, processor, examples, frames, control, options.batch_size)
            done[name] = {"seconds": round(time.perf_counter() - began, 1), "scores": as_plain(scores)}
            if name == "8 frames":
                done["prior"] = {type: measure_prior(options.split, type).prior for type in scores if type != "all"}
            options.output.write_text(json.dumps(done, indent=1) + "\n")
    print(table(done))


def table(done: dict) -> str:
    """Markdown: a line a type, percent."""
    names = [name for name in PARTS if name in done]
    lines = ["| type | prior | " + " | ".join(names) + " |", "|---|---:|" + "---:|" * len(names)]
    for type in done[names[0]]["scores"]:
        prior = f"{100 * done['prior'][type]:.1f}" if type in done["prior"] else ""
        cells = [f"{100 * done[name]['scores'][type]['accuracy']:.1f}" for name in names]
        lines.append(f"| {type} | {prior} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
