"""What it costs that a video does not see the question: right answers with a video cache beside exact decoding.

    python benchmarks/shared_video.py [--questions 2100] [--frames 8 32] [--threads 1] [--output FILE.json]

The embedded checkpoint on the moving shapes' test split, all types alike. Each question is answered by exact decoding,
and with a cache of its video. Seconds are those of one question more about a video whose features (exact) or keys and
values (shared) are there. An interrupted run goes on where it was: delete the file to measure anew.
"""

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from moving_shapes import BENCHMARK_TYPES, MovingShapes
from vidlada_hf.evaluation.bench import describe_setup
from vidlada_hf.evaluation.decoding import DecodingRunner, prepare_inputs
from vidlada_hf.evaluation.questions import are_right
from vidlada_hf.evaluation.record import Record
from vidlada_hf.evaluation.statistics import compare_right

SETTINGS = {"max_new_tokens": 64, "block_length": 32}
BATCH = 21


def answer_twice(runner: DecodingRunner, questions: Sequence[Any]) -> dict[str, list]:
    """Texts and seconds of exact decoding, and of a video cache; both one question at a time."""
    found: dict[str, list] = {"exact": [], "shared": [], "exact_seconds": [], "shared_seconds": []}
    model = runner.model
    for question in questions:
        inputs = prepare_inputs(runner.processor, [question], runner.num_frames).to(model.device, model.dtype)
        features = model.get_video_features(inputs.pop("pixel_values_videos"), inputs["num_frames_per_video"])
        cache = model.encode_video(**inputs, video_features=features)
        ways = {"exact": {"video_features": features}, "shared": {"video_cache": cache}}
        for name, arguments in ways.items():
            began = time.perf_counter()
            output = model.generate(**inputs, **arguments, **SETTINGS)
            found[f"{name}_seconds"].append(round(time.perf_counter() - began, 4))
            text = runner.processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            found[name].append(text.strip())
    return found


def measure(runner: DecodingRunner, frames: int, count: int, results: dict[str, Any], record: Record) -> None:
    """Answers what is missing, batch by batch."""
    examples = MovingShapes("test", count, num_frames=frames)
    entries = results.setdefault("answers", [])
    for start in tqdm(range(len(entries) * BATCH, count, BATCH), desc=f"{frames} frames", unit="batch"):
        questions = [examples[i].as_question() for i in range(start, min(start + BATCH, count))]
        found = answer_twice(runner, questions)
        entries.append(
            {
                "types": [examples[i].type for i in range(start, min(start + BATCH, count))],
                **{name: are_right(questions, found[name]) for name in ("exact", "shared")},
                **{name: found[name] for name in ("exact_seconds", "shared_seconds")},
            }
        )
        record.save()


def summarize(results: dict[str, Any]) -> dict[str, Any]:
    """Shares of right answers, lost and gained ones, by type; the median seconds of an answer."""
    joined = {key: [value for entry in results["answers"] for value in entry[key]] for key in results["answers"][0]}
    lost: Counter[str] = Counter()
    gained: Counter[str] = Counter()
    for kind, before, after in zip(joined["types"], joined["exact"], joined["shared"], strict=True):
        lost[kind] += before and not after
        gained[kind] += after and not before
    seconds = {name: sorted(joined[f"{name}_seconds"])[len(joined["types"]) // 2] for name in ("exact", "shared")}
    by_type = {kind: {"lost": lost[kind], "gained": gained[kind]} for kind in BENCHMARK_TYPES}
    return {
        "questions": len(joined["types"]),
        "right": {name: round(sum(joined[name]) / len(joined[name]), 4) for name in ("exact", "shared")},
        "comparison": asdict(compare_right(joined["shared"], joined["exact"])),
        "by_type": by_type,
        "median_seconds": seconds,
        "one more question is this many times as fast": round(seconds["exact"] / seconds["shared"], 2),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=2100)
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    runner = DecodingRunner.from_pretrained(None, options.frames[0], settings=SETTINGS)
    record = Record(options.output, describe_setup(runner, "vidlada-tiny") | {"questions": options.questions})
    for frames in options.frames:
        results = record.data.setdefault("by_frames", {}).setdefault(str(frames), {})
        measure(DecodingRunner(runner.model, runner.processor, frames), frames, options.questions, results, record)
        results["summary"] = summarize(results)
        record.save()
        print(frames, results["summary"])


if __name__ == "__main__":
    main()
