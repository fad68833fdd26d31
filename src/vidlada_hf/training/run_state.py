"""What a run keeps in its folder, so that a killed one goes on where it was, and only with the settings it began with.

Each stage has a folder: its settings (`stage.json`), its checkpoints, the log, and when it is done `model/`, which the
next stage starts from.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .data.video_dataset import SKIPPED_FILE
from .recipe import Recipe, Stage

BLOCKS, BLOCK_SIZE = 64, 1 << 14  # how many blocks, of how many bytes, of a file of weights its fingerprint reads
# Settings that a stage which is done may be followed with in another way.
OF_UNFINISHED = ("processes", "sharding", "records", "weights")


@dataclass(frozen=True)
class StageRun:
    """One stage of a run.

    Args:
        stage: as the recipe says.
        start: the model that it begins with: a folder, an id, or "module:function".
        folder: of everything that the stage leaves.
        seed: of everything that the stage draws.
        dtype: of the weights, see `Recipe`.
    """

    stage: Stage
    start: str
    folder: Path
    seed: int
    dtype: str = "auto"

    @property
    def model_folder(self) -> Path:
        """The stage's result; it is there when the stage is done."""
        return self.folder / "model"

    @property
    def is_done(self) -> bool:
        return self.model_folder.is_dir()


def stage_runs(recipe: Recipe) -> list[StageRun]:
    """The stages in their order, each of which starts with what the one before leaves."""
    runs: list[StageRun] = []
    for number, stage in enumerate(recipe.stages, 1):
        start = str(runs[-1].model_folder) if runs else recipe.model
        folder = Path(recipe.output_dir) / f"{number}-{stage.name}"
        runs.append(StageRun(stage, start, folder, recipe.seed + number, recipe.dtype))
    return runs


def final_model(recipe: Recipe) -> Path:
    """The folder of the trained model when all stages are done."""
    return stage_runs(recipe)[-1].model_folder


def claim(recipe: Recipe, processes: int, records: Sequence[str] = ()) -> None:
    """Writes down what each stage is run with. One that has a checkpoint must be resumed as it was begun, and by as
    many processes: they share its batches and masks.

    Args:
        records: fingerprints of the stages' data files, see `Task.check`.

    Raises:
        ValueError: a stage was begun with other settings; the message names them.
    """
    sharding = next((way for way in ("FSDP", "DEEPSPEED") if os.environ.get(f"ACCELERATE_USE_{way}") == "true"), "")
    shared = {"model": recipe.model, "seed": recipe.seed, "dtype": recipe.dtype}
    shared |= {"processes": processes, "sharding": sharding, "weights": fingerprint_weights(recipe.model)}
    runs = stage_runs(recipe)
    for run, fingerprint in zip(runs, records or [""] * len(runs), strict=True):
        claim_stage(run, shared | {"records": fingerprint})


def claim_stage(run: StageRun, shared: dict[str, Any]) -> None:
    """Writes a stage's settings and those that it shares with the run, or compares them with what is written."""
    file, settings = run.folder / "stage.json", asdict(run.stage) | shared
    if not run.is_done and not any(run.folder.glob("checkpoint-*")):
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / SKIPPED_FILE).unlink(missing_ok=True)  # of an earlier start that failed
        file.write_text(json.dumps(settings, indent=2) + "\n")
        return
    before = shared | asdict(Stage(run.stage.name)) | read_settings(file)  # a setting may be newer than the file
    ignored = OF_UNFINISHED if run.is_done else ()
    changed = [key for key in settings if before.get(key) != settings[key] and key not in ignored]
    if changed:
        lines = [line for key in changed for line in describe_change(key, before.get(key), settings[key])]
        raise ValueError(
            f"Stage {run.stage.name!r} was begun with other settings ({'; '.join(lines)}): delete {run.folder} to "
            f"start it anew, change the recipe or its files back (see {file}), or choose another `output_dir`."
        )


def read_settings(file: Path) -> dict[str, Any]:
    """The settings that a stage was begun with; ValueError if they are lost."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{file}, which says what this stage was begun with, cannot be read ({error}): delete {file.parent} to "
            "start the stage anew."
        ) from error


def describe_change(name: str, before: Any, now: Any) -> list[str]:
    """What of a setting has changed, in words."""
    if before == now:
        return []
    if isinstance(before, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*before, *now])
        return [line for key in keys for line in describe_change(f"{name}.{key}", before.get(key), now.get(key))]
    if name in ("records", "weights"):
        what = {"records": "data files", "weights": "model's files"}[name]
        return [f"{name}: the {what} hold something else than before"]
    return [f"{name}: {before!r} before, {now!r} now"]


def fingerprint_weights(start: str) -> str:
    """A digest of some blocks of each file of weights in a folder; "" where there is no folder."""
    if not Path(start).is_dir():
        return ""
    digest = hashlib.sha256()
    for file in sorted(Path(start).glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as opened:
            for offset in range(0, size, max(BLOCK_SIZE, size // BLOCKS)):
                opened.seek(offset)
                digest.update(opened.read(BLOCK_SIZE))
    return digest.hexdigest()


__all__ = ["StageRun", "claim", "final_model", "fingerprint_weights", "stage_runs"]
