"""`vidlada ask`."""

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from ..hub.locate import find_checkpoint
from .common import app, refuse, require_video, user_errors


@app.command()
def ask(
    video: Annotated[str, typer.Argument(help="A video file, or a folder of frames.")],
    questions: Annotated[
        list[str], typer.Argument(help="What to ask about it. The video of several questions is encoded once.")
    ],
    model: Annotated[
        str | None, typer.Option(help="Folder of a checkpoint or its id on the Hub.", show_default="the embedded one")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Look at so many frames, spread evenly over the video.")] = None,
    fps: Annotated[float | None, typer.Option(help="Look at so many frames a second.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Length of the canvas, in tokens.")] = None,
    block_length: Annotated[int | None, typer.Option(help="Denoise the canvas in blocks of so many tokens.")] = None,
    max_denoising_steps: Annotated[int | None, typer.Option(help="Steps over the whole canvas.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 takes the most probable token.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the noise at a temperature above 0, and of the masks of choices.")
    ] = None,
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", help="Fetch the video if it is an http(s) address.")
    ] = False,
    choice: Annotated[
        list[str] | None,
        typer.Option(help="Score this answer, and generate none; to be given at least twice.", show_default=False),
    ] = None,
    share_video: Annotated[
        bool,
        typer.Option(
            "--share-video",
            help="Several questions also share the video's keys and values, for which it does not see the questions: "
            "faster, and some answers differ.",
        ),
    ] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Show the answer while it is denoised.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer and how it was made as JSON.")] = False,
) -> None:
    """Answer questions about a video."""
    if frames is not None and fps is not None:
        refuse("--frames and --fps are two ways to choose frames: give one of them.", 2)
    if stream and as_json:
        refuse("--stream and --json both write to stdout: give one of them.", 2)
    settings: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "block_length": block_length,
        "max_denoising_steps": max_denoising_steps,
        "temperature": temperature,
        "seed": seed,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    generating = [name for name in given if name != "seed"] + ["stream"] * stream
    if choice and generating:
        option = generating[0].replace("_", "-")
        refuse(f"--choice scores answers and generates none: leave out --{option}.", 2)
    with user_errors():
        find_checkpoint(model)
        require_video(video)
        from ..inference.ask import ask_each

        options: dict[str, Any] = {
            "num_frames": frames,
            "fps": fps,
            "allow_urls": allow_urls,
            "share_video": share_video,
        }
        for answer in ask_each(video, questions, model, choices=choice or None, stream=stream, **options, **given):
            if as_json:
                typer.echo(json.dumps(asdict(answer), ensure_ascii=False))
                continue
            if len(questions) > 1 and not stream:
                typer.echo(answer.question)
            for text, likelihood in answer.choices:
                typer.echo(f"{likelihood:.3f}  {text}")
            if not stream and not answer.choices:
                typer.echo(answer.answer)
