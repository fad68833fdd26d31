"""Accuracy of the embedded checkpoint by question type, with the right videos and with changed ones.

    python benchmarks/tiny_accuracy.py [--questions 1050] [--output benchmarks/tiny_accuracy.json]

Test split: combinations and backgrounds that training does not contain. Each part adds its own entry to the JSON and is
skipped if it is there, so an interrupted run goes on; another set-up is an error. Delete the file to measure anew.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

from moving_shapes import MovingShapes
from moving_shapes.baselines.answer_priors import measure_prior
from moving_shapes.evaluate import as_plain, measure, score_answers
from vidlada_hf import VidLaDAForConditionalGeneration, VidLaDAProcessor, export_checkpoint
from vidlada_hf.evaluation.record import Record
from vidlada_hf.hub.locate import EMBEDDED_CHECKPOINT
from vidlada_hf.modeling.fingerprints_vidlada import fingerprint_model

# Visual tokens attend to their own frame, the text and the canvas, in every layer of every step.
FRAME_LOCAL = {
    "cache_strategy": "mars",
    "cache_config": {
        "neighborhood": 0,
        "anchors": 0,
        "first_step": "chunked",
        "visual_intervals": [1],
        "text_intervals": [1],
    },
}


@dataclass(frozen=True)
class Part:
    """One measurement.

    Args:
        frames: of a video.
        control: change of the video, as of `measure`.
        share: of the questions.
        settings: arguments of `generate`.
        route: to the model: "arrays", "files" (mp4), "pipeline" (mp4), or "exported" (mp4, without the package).
    """

    frames: int = 8
    control: str = "none"
    share: float = 0.5
    settings: dict[str, Any] = field(default_factory=dict)
    route: str = "arrays"


PARTS = {
    "8 frames": Part(share=1.0),
    "16 frames": Part(16),
    "32 frames": Part(32),
    "8 frames, from mp4": Part(share=1.0, route="files"),
    "8 frames, mp4 through the pipeline": Part(share=1.0, route="pipeline"),
    "8 frames, mp4, exported folder without the package": Part(share=1.0, route="exported"),
    "8 frames, gray video": Part(control="gray"),
    "8 frames, another scene's video": Part(control="other"),
    "8 frames, shuffled": Part(control="shuffled"),
    "8 frames, frame-local attention": Part(settings=FRAME_LOCAL),
    "8 frames, the controls' half": Part(),
    "8 frames, one token a step": Part(settings={"unmasking": "quota"}),
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(EMBEDDED_CHECKPOINT))
    parser.add_argument("--split", default="test")
    parser.add_argument("--questions", type=int, default=1050, help="of all types in turn")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="measure these parts alone")
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args(arguments)

    processor = VidLaDAProcessor.from_pretrained(options.model)
    model = VidLaDAForConditionalGeneration.from_pretrained(options.model).eval()
    setup = {
        "split": options.split,
        "questions": options.questions,
        "weights": fingerprint_model(model),
        "generation": model.generation_config.to_dict(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    record = Record(options.output, setup)
    done = record.data
    with tempfile.TemporaryDirectory() as folder:
        for name, part in PARTS.items():
            if name in done or (options.only and name not in options.only):
                continue
            extra = {} if part.route == "arrays" else {"video_folder": folder}
            examples = list(MovingShapes(options.split, round(options.questions * part.share), part.frames, **extra))
            began = time.perf_counter()
            if part.route in ROUTES:
                scores = score_answers(examples, ROUTES[part.route](options.model, examples, part.frames))
            else:
                scores = measure(
                    model, processor, examples, part.frames, part.control, options.batch_size, **part.settings
                )
            done[name] = {"seconds": round(time.perf_counter() - began, 1), "scores": as_plain(scores)}
            if name == "8 frames":
                done["prior"] = {type: measure_prior(options.split, type).prior for type in scores if type != "all"}
            record.save()
    print(table(done))


def through_pipeline(model: str, examples: list, num_frames: int) -> list[str]:
    """Answers of the pipeline "video-text-to-text"."""
    pipe = transformers.pipeline("video-text-to-text", model=model, device="cpu")
    requests = ({"video": str(example.path), "text": example.question} for example in examples)
    return [out[0]["generated_text"] for out in pipe(requests, num_frames=num_frames, batch_size=20)]


def through_export(model: str, examples: list, num_frames: int) -> list[str]:
    """Answers of the exported folder in a process of its own."""
    with tempfile.TemporaryDirectory() as work:
        folder = export_checkpoint(model, Path(work) / "exported")
        requests, answers = Path(work) / "requests.json", Path(work) / "answers.json"
        asked = [(str(example.path), example.question) for example in examples]
        requests.write_text(json.dumps({"num_frames": num_frames, "requests": asked}))
        script = Path(__file__).with_name("exported_answers.py")
        subprocess.run([sys.executable, script, folder, requests, answers], check=True, cwd=work)
        return json.loads(answers.read_text())


ROUTES = {"pipeline": through_pipeline, "exported": through_export}


def table(done: dict) -> str:
    """Markdown: a line for each type, in percent."""
    names = [name for name in PARTS if name in done]
    lines = ["| type | prior | " + " | ".join(names) + " |", "|---|---:|" + "---:|" * len(names)]
    priors = done.get("prior", {})  # measured with the first part
    for type in done[names[0]]["scores"]:
        prior = f"{100 * priors[type]:.1f}" if type in priors else ""
        cells = [f"{100 * done[name]['scores'][type]['accuracy']:.1f}" for name in names]
        lines.append(f"| {type} | {prior} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
