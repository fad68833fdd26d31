"""`vidlada ask`."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from .common import app, refuse, user_errors


@app.command()
def ask(
    video: Annotated[str, typer.Argument(help="A video file, or a folder of frames.")],
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
    model: Annotated[
        str | None, typer.Option(help="Folder of a checkpoint or its id on the Hub.", show_default="the embedded one")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Look at so many frames, spread evenly over the video.")] = None,
    fps: Annotated[float | None, typer.Option(help="Look at so many frames a second.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Length of the canvas, in tokens.")] = None,
    block_length: Annotated[int | None, typer.Option(help="Denoise the canvas in blocks of so many tokens.")] = None,
    max_denoising_steps: Annotated[int | None, typer.Option(help="Steps over the whole canvas.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 takes the most probable token.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the noise at a temperature above 0.")] = None,
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", help="Fetch the video if it is an http(s) address.")
    ] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Show the answer while it is denoised.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer and how it was made as JSON.")] = False,
) -> None:
    """Answer a question about a video."""
    if frames is not None and fps is not None:
        refuse("--frames and --fps are two ways to choose frames: give one of them.", 2)
    if stream and as_json:
        refuse("--stream and --json both write to stdout: give one of them.", 2)
    settings = {
        "max_new_tokens": max_new_tokens,
        "block_length": block_length,
        "max_denoising_steps": max_denoising_steps,
        "temperature": temperature,
        "seed": seed,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    with user_errors():
        from ..inference.ask import ask

        answer = ask(video, question, model, num_frames=frames, fps=fps, allow_urls=allow_urls, stream=stream, **given)
    if as_json:
        typer.echo(json.dumps(asdict(answer), ensure_ascii=False))
    elif not stream:
        typer.echo(answer.answer)
