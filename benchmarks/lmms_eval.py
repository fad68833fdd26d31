"""lmms-eval beside this package's own evaluation: the same checkpoint and questions, one and two processes.

    make eval-env
    python benchmarks/lmms_eval.py [--questions 210] [--environment .venv-eval] [--folder runs/lmms_eval]

Writes moving shapes as mp4 files, has `vidlada eval` of the other environment ask them, and asks them here too. What is
finished in the folder is not run again. Without --output the results go to lmms_eval.json beside this script.
"""

import argparse
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidlada_hf import EMBEDDED_CHECKPOINT, VidLaDAForConditionalGeneration, VidLaDAProcessor
from vidlada_hf.evaluation.decoding import answer_questions
from vidlada_hf.evaluation.questions import VideoQuestion, are_right, load_questions
from vidlada_hf.evaluation.record import Record
from vidlada_hf.modeling.fingerprints_vidlada import fingerprint_model

HERE = Path(__file__).parent
STRATEGIES = {"exact": "none", "mars": "mars"}
PROCESSES = (1, 2)
FRAMES, BATCH = 8, 4
CANVAS = {"moving_shapes_open": 128, "moving_shapes_choice": 8}  # tokens, as the tasks ask for


def write_files(folder: Path, count: int) -> dict[str, list[VideoQuestion]]:
    """The questions of each task, as files in a folder."""
    from moving_shapes import write_questions
    from moving_shapes.questions import CHOICE_TYPES

    write_questions.main([str(folder), "--count", str(count)])
    questions = load_questions(folder / "questions.jsonl")
    return {
        name: [each for each in questions if (each.type in CHOICE_TYPES) == name.endswith("choice")] for name in CANVAS
    }


def ask_lmms_eval(environment: Path, folder: Path, strategy: str, processes: int) -> dict[str, list[str]]:
    """The answers of each task by lmms-eval."""
    output = folder / f"{strategy}-{processes}"
    options = ["--tasks", "moving_shapes", "--include", folder, "--frames", FRAMES, "--batch-size", BATCH]
    options += ["--cache-strategy", STRATEGIES[strategy], "--processes", processes, "--output", output]
    subprocess.run([str(each) for each in (environment / "bin" / "vidlada", "eval", *options)], check=True)
    samples = json.loads((output / "moving_shapes.json").read_text(encoding="utf-8"))["samples"]
    ordered = {name: sorted(found, key=lambda sample: sample["doc_id"]) for name, found in samples.items()}
    return {name: [sample["filtered_resps"][0] for sample in found] for name, found in ordered.items()}


def ask_here(asked: dict[str, list[VideoQuestion]], strategy: str) -> dict[str, list[str]]:
    """The answers of each task by this package's own evaluation."""
    model = VidLaDAForConditionalGeneration.from_pretrained(EMBEDDED_CHECKPOINT).eval()
    processor = VidLaDAProcessor.from_pretrained(EMBEDDED_CHECKPOINT)
    answers: dict[str, list[str]] = {}
    for name, questions in asked.items():
        settings: dict[str, Any] = {"max_new_tokens": CANVAS[name], "cache_strategy": STRATEGIES[strategy]}
        batches = answer_questions(model, processor, questions, FRAMES, BATCH, **settings)
        answers[name] = [text for batch in batches for text in batch]
    return answers


def share(asked: dict[str, list[VideoQuestion]], answers: dict[str, list[str]]) -> float:
    """Of the right answers of all tasks."""
    verdicts = [verdict for name in asked for verdict in are_right(asked[name], answers[name]) or []]
    return sum(verdicts) / len(verdicts)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=210)
    parser.add_argument("--environment", type=Path, default=Path(".venv-eval"))
    parser.add_argument("--folder", type=Path, default=Path("runs/lmms_eval"))
    parser.add_argument("--output", type=Path, default=HERE / "lmms_eval.json")
    given = parser.parse_args(arguments)
    asked = write_files(given.folder.resolve(), given.questions)
    weights = fingerprint_model(VidLaDAForConditionalGeneration.from_pretrained(EMBEDDED_CHECKPOINT))
    setup = {"model": "vidlada-tiny", "weights": weights, "frames": FRAMES, "batch_size": BATCH}
    setup["questions"] = given.questions
    record = Record(given.output, setup)
    results = record.data.setdefault("results", {})
    for strategy in STRATEGIES:
        due = [count for count in PROCESSES if f"{strategy}, {count}" not in results]
        own = ask_here(asked, strategy) if due else {}
        for count in due:
            found = ask_lmms_eval(given.environment, given.folder.resolve(), strategy, count)
            results[f"{strategy}, {count}"] = {
                "lmms_eval": share(asked, found),
                "own": share(asked, own),
                "same_answers": sum(a == b for name in asked for a, b in zip(found[name], own[name], strict=True)),
            }
            record.save()
    return record.data


if __name__ == "__main__":
    print(json.dumps(main(), indent=1))
