"""`vidlada ask`."""

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from ..hub.locate import find_checkpoint
from .common import app, refuse, require_video, tell_if_embedded, user_errors
from .options import (
    BlockLength,
    CacheStrategy,
    Device,
    Dtype,
    Fps,
    Frames,
    MaxDenoisingSteps,
    MaxNewTokens,
    Model,
    Temperature,
    Unmasking,
    check_frames,
    decoding_settings,
    given,
)


@app.command()
def ask(
    video: Annotated[str, typer.Argument(help="A video file, or a folder of frames.")],
    questions: Annotated[
        list[str], typer.Argument(help="What to ask about it. The video of several questions is encoded once.")
    ],
    model: Model = None,
    frames: Frames = None,
    fps: Fps = None,
    max_new_tokens: MaxNewTokens = None,
    block_length: BlockLength = None,
    max_denoising_steps: MaxDenoisingSteps = None,
    cache_strategy: CacheStrategy = None,
    unmasking: Unmasking = None,
    temperature: Temperature = None,
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
    device: Device = None,
    dtype: Dtype = "auto",
    stream: Annotated[bool, typer.Option("--stream", help="Show the answer while it is denoised.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer and how it was made as JSON.")] = False,
) -> None:
    """Answer questions about a video."""
    check_frames(frames, fps)
    if stream and as_json:
        refuse("--stream and --json both write to stdout: give one of them.", 2)
    settings = given(
        max_new_tokens=max_new_tokens,
        block_length=block_length,
        max_denoising_steps=max_denoising_steps,
        temperature=temperature,
        seed=seed,
    )
    generating = [*(set(settings) - {"seed"}), *["unmasking"] * (unmasking is not None), *["stream"] * stream]
    if choice and generating:
        option = generating[0].replace("_", "-")
        refuse(f"--choice scores answers and generates none: leave out --{option}.", 2)
    with user_errors():
        find_checkpoint(model)
        require_video(video)
        tell_if_embedded(model)
        from ..inference.ask import ask_each

        settings |= decoding_settings(cache_strategy, unmasking)
        options: dict[str, Any] = {
            "num_frames": frames,
            "fps": fps,
            "allow_urls": allow_urls,
            "share_video": share_video,
            "device": device,
            "dtype": dtype,
        }
        for answer in ask_each(video, questions, model, choices=choice or None, stream=stream, **options, **settings):
            if as_json:
                typer.echo(json.dumps(asdict(answer), ensure_ascii=False))
                continue
            if len(questions) > 1 and not stream:
                typer.echo(answer.question)
            for text, likelihood in answer.choices:
                typer.echo(f"{likelihood:.3f}  {text}")
            if not stream and not answer.choices:
                typer.echo(answer.answer)
