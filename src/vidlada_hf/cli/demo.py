"""`vidlada demo`."""

from pathlib import Path
from typing import Annotated

import typer

from ..hub.locate import find_checkpoint
from .common import app, user_errors


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for what it makes.")] = Path("demo-output"),
    model: Annotated[
        str | None, typer.Option(help="Folder of a checkpoint or its id on the Hub.", show_default="the embedded one")
    ] = None,
) -> None:
    """Ask the embedded checkpoint about a short video that comes with it."""
    with user_errors("demo"):
        find_checkpoint(model)
        from ..evaluation.demo import run_demo

        done = run_demo(output, model)
    typer.echo(f"Video:      {done.video}\nCheckpoint: {done.model}\n")
    for reply in done.replies:
        verdict = {0.0: "WRONG", 1.0: "right"}.get(reply.score, f"{reply.score:.0%} of the sentences")
        typer.echo(f"Question: {reply.question}\n  answer:   {reply.answer}\n  expected: {reply.expected}  [{verdict}]")
    if done.picture is not None:
        typer.echo(f"\nPicture of the last answer being denoised: {done.picture}")
    else:
        typer.echo("\nFor a picture of the last answer being denoised: pip install 'vidlada_hf[demo]'")
