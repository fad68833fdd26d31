"""Makes a finished run of `recipe.yaml` or `captions.yaml` the embedded checkpoint, and keeps its log.

    python -m moving_shapes.train.ship runs/vidlada-tiny
    python -m moving_shapes.train.ship runs/vidlada-tiny-captions --continues --mean-with 2-captions_again

The second run began with the embedded checkpoint, and the mean of two of its stages is shipped. Copies the last stage's
model into the package, without the heads of the dense labels and without code, and writes the demo beside it. Joins the
logs of all stages in benchmarks/tiny_training.json, and draws benchmarks/tiny_training.png.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from safetensors.torch import load_file, save_file

from vidlada_hf.hub.checksums import CHECKSUMS
from vidlada_hf.hub.locate import EMBEDDED_CHECKPOINT
from vidlada_hf.training.run import HEADS, interpolate

from .demo import write_demo

LIMIT = 12e6  # bytes
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
LOG = "tiny_training.json"
WEIGHTS = "model.safetensors"
CODE_FIELDS = ("auto_map", "custom_pipelines")  # name files of code, which stay in the package


def ship(
    run: Path,
    checkpoint: Path = EMBEDDED_CHECKPOINT,
    benchmarks: Path = BENCHMARKS,
    continues: bool = False,
    mean_with: str | None = None,
) -> dict[str, float]:
    """Copies a run's model and log.

    Args:
        run: the recipe's `output_dir`.
        checkpoint: the folder of the embedded checkpoint. Its README.md stays.
        benchmarks: the folder of the log and its curves.
        continues: whether it began with the embedded checkpoint: its stages then follow those in the log.
        mean_with: a stage's folder in `run`. What is shipped is the mean of its weights and the last stage's.

    Returns:
        The minutes of each stage.

    Raises:
        ValueError: the model is too large to be embedded, or the stage to average with has no weights.
    """
    stages = sorted((folder for folder in run.iterdir() if (folder / "log.json").is_file()), key=stage_number)
    model = stages[-1] / "model"
    files = [file for file in model.iterdir() if file.name not in (HEADS, CHECKSUMS) and file.suffix != ".py"]
    size = sum(file.stat().st_size for file in files)
    if size > LIMIT:
        raise ValueError(f"{model} takes {size / 1e6:.1f} MB, more than the {LIMIT / 1e6:.0f} that may be embedded.")
    other = run / str(mean_with) / "model" / WEIGHTS
    if mean_with is not None and not other.is_file():
        raise ValueError(f"{mean_with!r} is no stage with weights: {other} is missing.")
    logs = json.loads((benchmarks / LOG).read_text())["log"] if continues else {}
    before = len(logs)
    for stage in stages:
        number, name = stage.name.split("-", 1)
        logs[f"{before + int(number)}-{name}"] = json.loads((stage / "log.json").read_text())
    minutes = {name: round(log[-1].get("seconds", log[-1]["train_runtime"]) / 60, 1) for name, log in logs.items()}
    checkpoint.mkdir(parents=True, exist_ok=True)
    for file in files:
        copy_file(file, checkpoint)
    if mean_with is not None:
        average_weights(other, checkpoint / WEIGHTS)
    write_demo(checkpoint / "demo")
    (benchmarks / LOG).write_text(json.dumps({"minutes": minutes, "log": logs}) + "\n")
    draw_curves(logs, minutes, benchmarks / "tiny_training.png")
    return minutes


def copy_file(file: Path, folder: Path) -> None:
    """Copies a file of a model; a configuration without the names of files of code."""

    def drop_code(fields: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in fields.items() if name not in CODE_FIELDS}

    if not file.name.endswith("config.json"):
        shutil.copy(file, folder / file.name)
    else:
        content = json.loads(file.read_text(encoding="utf-8"), object_hook=drop_code)
        (folder / file.name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def average_weights(other: Path, weights: Path) -> None:
    """Writes the mean of two files of float32 or bfloat16 weights into the second, in its dtype."""
    save_file(interpolate(load_file(other), load_file(weights), 0.5), weights, metadata={"format": "pt"})


def stage_number(folder: Path) -> int:
    """The number that the name of a stage's folder begins with."""
    return int(folder.name.split("-")[0])


def draw_curves(logs: dict[str, list[dict[str, Any]]], minutes: dict[str, float], path: Path) -> None:
    """Loss and accuracies of each stage over its steps."""
    figure = Figure(figsize=(4.5 * len(logs), 7), layout="constrained")
    for column, (name, log) in enumerate(logs.items()):
        losses = figure.add_subplot(2, len(logs), column + 1)
        rates = figure.add_subplot(2, len(logs), len(logs) + column + 1)
        losses.plot(*zip(*[(e["step"], float(e["loss"])) for e in log if "loss" in e], strict=True))
        losses.set_title(f"{name}: loss ({minutes[name]:g} min)")
        losses.set_yscale("log")
        names = {key for entry in log for key in entry}
        keys = sorted(k for k in names if k.endswith("_accuracy") or k.startswith(("cell_labels/", "denoised/")))
        keys += ["first_word"] if "first_word" in names else []
        for key in keys:
            rates.plot(*zip(*[(e["step"], e[key]) for e in log if key in e], strict=True), label=key, linewidth=1)
        rates.set_ylim(0, 1.02)
        rates.set_xlabel("step")
        if keys:
            rates.legend(fontsize=5, ncols=2)
    figure.savefig(path, dpi=110)


def main(arguments: list[str] | None = None) -> None:
    """Ships a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--continues", action="store_true", help="the run began with the embedded checkpoint")
    parser.add_argument("--mean-with", metavar="STAGE", help="a stage whose weights are averaged with the last one's")
    options = parser.parse_args(arguments)
    minutes = ship(options.run, continues=options.continues, mean_with=options.mean_with)
    print(f"{EMBEDDED_CHECKPOINT}; {sum(minutes.values()):.0f} minutes: {minutes}")


if __name__ == "__main__":
    main()


__all__ = ["draw_curves", "ship"]
