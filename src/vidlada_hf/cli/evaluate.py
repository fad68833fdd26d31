"""`vidlada eval`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..hub.locate import find_checkpoint
from ..setting_names import parse_cache
from .common import app, require_extra, tell_if_embedded, user_errors
from .options import ModelArgument, OneCacheStrategy


@app.command("eval")
def evaluate(
    model: ModelArgument = None,
    tasks: Annotated[
        str, typer.Option(help="Names of lmms-eval, such as videomme,mvbench. Known ones get the official settings.")
    ] = "",
    include: Annotated[
        Path | None, typer.Option(help="A folder with the YAML files of tasks of your own.", show_default=False)
    ] = None,
    output: Annotated[
        Path, typer.Option(help="Folder of the results. What is finished in it is not run again.")
    ] = Path("eval"),
    frames: Annotated[
        int | None, typer.Option(help="Frames of each video, in place of the official one a second.")
    ] = None,
    cache_strategy: OneCacheStrategy = "none",
    model_args: Annotated[
        str, typer.Option(help="More settings, as lmms-eval writes them: NAME=VALUE,NAME=VALUE.", show_default="none")
    ] = "",
    share_video: Annotated[
        bool,
        typer.Option(
            "--share-video",
            help="Questions about one video share its keys and values, for which it does not see them: their answers "
            "are not exact.",
        ),
    ] = False,
    batch_size: Annotated[int, typer.Option(help="Questions that a process answers at a time.", min=1)] = 1,
    processes: Annotated[int, typer.Option(help="Processes of this machine that share the questions.", min=1)] = 1,
    limit: Annotated[
        int | None, typer.Option(help="Ask the first so many questions of each task.", show_default="all", min=1)
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Let lmms-eval fetch data that are not there from the Hub.")
    ] = False,
) -> None:
    """Run benchmarks of lmms-eval, and print the scores beside published ones."""
    with user_errors(kept=f"The answers so far are in {output}; the same command goes on."):
        names = tuple(dict.fromkeys(name.strip() for name in tasks.split(",") if name.strip()))
        if not names:
            raise ValueError("No benchmark is named: give --tasks, such as --tasks videomme,mvbench.")
        find_checkpoint(model)
        require_extra("eval-env")
        from ..evaluation.lmms.run import EvalRun, parse_model_args, table
        from ..evaluation.lmms.run import evaluate as run_tasks

        strategy, config = parse_cache(cache_strategy)
        given: dict[str, Any] = {"pretrained": model, "num_frames": frames, "cache_config": config or None}
        given |= {"cache_strategy": strategy, "share_video": share_video}
        settings = {**{k: v for k, v in given.items() if v is not None}, **parse_model_args(model_args)}
        run = EvalRun(names, str(output), settings, str(include) if include else None, batch_size, limit)
        data = run_tasks(run, processes, download)
        tell_if_embedded(model)
    typer.echo(f"{table(data)}\n\nResults: {output}")
