"""`vidlada train`."""

import math
from pathlib import Path
from typing import Annotated

import typer

from .common import app, require_extra, require_file, user_errors


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="YAML file that says where to start and what each stage does.")],
    processes: Annotated[int, typer.Option(help="Processes of this machine that share each batch.", min=1)] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print parameters, batches and memory.")] = False,
    device_memory: Annotated[
        float | None, typer.Option(help="With --dry-run: GiB of a device.", show_default="this machine's")
    ] = None,
) -> None:
    """Train a model, stage by stage. The same command goes on with a run that was interrupted."""
    with user_errors("train", "The last checkpoint is kept; the same command goes on."):
        require_extra("train")
        require_file(recipe)
        from ..training.recipe import Recipe

        parsed = Recipe.from_yaml(recipe)  # raises for its mistakes before anything is started
        if dry_run:
            typer.echo(estimate(parsed, processes, device_memory))
            return
        if processes > 1:
            from ..training.launch import launch

            model = launch(recipe, processes)
        else:
            from ..training import run

            model = run.train(parsed)
    typer.echo(f"Trained. The model is in {model}.")


def estimate(recipe: object, processes: int, device_memory: float | None) -> str:
    """What `--dry-run` prints."""
    from ..training.memory_estimate import GIB, describe, plan

    if device_memory is not None and not 0 < device_memory < math.inf:
        raise ValueError(f"`--device-memory` must be a number of GiB above 0, got {device_memory}.")
    available = None if device_memory is None else round(device_memory * GIB)
    return describe(plan(recipe, processes), processes, available)  # type: ignore[arg-type]
