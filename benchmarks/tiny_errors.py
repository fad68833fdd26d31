"""The mistakes of the embedded checkpoint, by question type.

    python benchmarks/tiny_errors.py             # writes tiny_errors.json beside this file, a quarter of an hour

Test split, 8 frames, 120 questions of each type: other questions than those of tiny_accuracy.py (another seed). Shapes
of combinations that training does not contain are counted apart from others. And as many questions about fresh scenes
of the training split, whose combinations and backgrounds training contains.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from tqdm import tqdm

from moving_shapes import MovingShapes, is_right
from moving_shapes.mistakes import MISTAKES, is_held_out
from vidlada_hf import VidLaDAForConditionalGeneration, VidLaDAProcessor
from vidlada_hf.evaluation.decoding import answer_questions
from vidlada_hf.hub.locate import EMBEDDED_CHECKPOINT
from vidlada_hf.modeling.fingerprints_vidlada import fingerprint_model

FRAMES, BATCH, SEED = 8, 20, 1


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=120, help="of each type")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args(arguments)
    model = VidLaDAForConditionalGeneration.from_pretrained(EMBEDDED_CHECKPOINT).eval()
    processor = VidLaDAProcessor.from_pretrained(EMBEDDED_CHECKPOINT)
    setup = {
        "weights": fingerprint_model(model),
        "seed": SEED,
        "frames": FRAMES,
        "questions_a_type": options.questions,
    }
    result: dict[str, Any] = {"setup": setup}
    for split in ("test", "train"):
        examples = MovingShapes(split, options.questions * len(MISTAKES), FRAMES, tuple(MISTAKES), seed=SEED)
        result[split] = count_mistakes(model, processor, examples)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))


def count_mistakes(model: Any, processor: Any, examples: MovingShapes) -> dict[str, dict[str, Any]]:
    """For each type how often each mistake occurs, and [right, asked] about held-out combinations and about others."""
    counts: dict[str, dict[str, Any]] = {
        type: {"answers": Counter(), "held out": [0, 0], "shown": [0, 0]} for type in MISTAKES
    }
    for start in tqdm(range(0, len(examples), BATCH), desc=examples.split.name):
        batch = examples[start : start + BATCH]
        (answers,) = answer_questions(model, processor, [example.as_question() for example in batch], FRAMES, BATCH)
        for example, answer in zip(batch, answers, strict=True):
            right = is_right(example.details, answer)
            of_type = counts[example.type]
            of_type["answers"]["right" if right else MISTAKES[example.type](example, answer.lower())] += 1
            part = of_type["held out" if is_held_out(example) else "shown"]
            part[0], part[1] = part[0] + right, part[1] + 1
    for of_type in counts.values():
        of_type["answers"] = dict(of_type["answers"].most_common())
    return counts


def table(result: dict) -> str:
    """Markdown: a line for each type, its mistakes by frequency."""
    lines = [
        "| type | right | of held-out combinations | of others | training split | mistakes |",
        "|---|" + "---:|" * 4 + "---|",
    ]
    for type, test in result["test"].items():
        mistakes = ", ".join(f"{kind} {n}" for kind, n in test["answers"].items() if kind != "right")
        parts = [total(test), test["held out"], test["shown"], total(result["train"][type])]
        lines.append(f"| {type} | {' | '.join(map(percent, parts))} | {mistakes} |")
    return "\n".join(lines)


def total(of_type: dict) -> list[int]:
    """[right, asked] of a type."""
    return [of_type["answers"].get("right", 0), sum(of_type["answers"].values())]


def percent(part: list[int]) -> str:
    """[right, asked] in percent."""
    right, asked = part
    return f"{100 * right / asked:.0f} % of {asked}" if asked else "-"


if __name__ == "__main__":
    main()
