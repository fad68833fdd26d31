"""Makes a finished run of recipes/vidlada_tiny.yaml the embedded checkpoint, and keeps its log and its curves.

    python benchmarks/ship_tiny.py runs/vidlada-tiny

Copies the last stage's model into the package, joins the stages' logs in benchmarks/tiny_training.json, and draws
benchmarks/tiny_training.png.
"""

import argparse
import json
import shutil
from pathlib import Path

from matplotlib.figure import Figure
from vidlada_hf.asking import EMBEDDED_CHECKPOINT

LIMIT = 12e6  # bytes
HERE = Path(__file__).parent


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = parser.parse_args(arguments).run
    stages = sorted((place for place in run.iterdir() if (place / "log.json").is_file()), key=number_of)
    model = stages[-1] / "model"
    size = sum(file.stat().st_size for file in model.iterdir())
    if size > LIMIT:
        raise SystemExit(f"{model} takes {size / 1e6:.1f} MB, more than the {LIMIT / 1e6:.0f} that may be embedded.")
    logs = {stage.name: json.loads((stage / "log.json").read_text()) for stage in stages}
    minutes = {name: round(log[-1].get("seconds", log[-1]["train_runtime"]) / 60, 1) for name, log in logs.items()}
    EMBEDDED_CHECKPOINT.mkdir(parents=True, exist_ok=True)
    for file in model.iterdir():
        shutil.copy(file, EMBEDDED_CHECKPOINT / file.name)
    (HERE / "tiny_training.json").write_text(json.dumps({"minutes": minutes, "log": logs}) + "\n")
    draw(logs, minutes, HERE / "tiny_training.png")
    print(f"{model} -> {EMBEDDED_CHECKPOINT}, {size / 1e6:.1f} MB; {sum(minutes.values()):.0f} minutes: {minutes}")


def number_of(stage: Path) -> int:
    """The number that a stage's folder begins with."""
    return int(stage.name.split("-")[0])


def draw(logs: dict[str, list[dict]], minutes: dict[str, float], path: Path) -> None:
    """Loss and accuracies of each stage over its steps."""
    figure = Figure(figsize=(4.5 * len(logs), 7), layout="constrained")
    for column, (name, log) in enumerate(logs.items()):
        losses = figure.add_subplot(2, len(logs), column + 1)
        rates = figure.add_subplot(2, len(logs), len(logs) + column + 1)
        losses.plot(*zip(*[(e["step"], float(e["loss"])) for e in log if "loss" in e], strict=True))
        losses.set_title(f"{name}: loss ({minutes[name]:g} min)")
        losses.set_yscale("log")
        names = {key for entry in log for key in entry}
        keys = sorted(k for k in names if k.endswith("_accuracy") or k.startswith(("timelines/", "denoised/")))
        keys += ["first_word"] if "first_word" in names else []
        for key in keys:
            rates.plot(*zip(*[(e["step"], e[key]) for e in log if key in e], strict=True), label=key, linewidth=1)
        rates.set_ylim(0, 1.02)
        rates.set_xlabel("step")
        if keys:
            rates.legend(fontsize=5, ncols=2)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
