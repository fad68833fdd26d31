"""`vidlada batch`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..hub.locate import find_checkpoint
from .common import app, tell, tell_if_embedded, user_errors
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
def batch(
    source: Annotated[
        Path,
        typer.Argument(
            help='A folder of videos; a JSONL file, a line a video: {"video": path}, perhaps with "question" and "id"; '
            "or a text file, a path a line.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="JSONL file of the answers. One that is there is gone on with.")],
    question: Annotated[
        list[str] | None,
        typer.Option(
            help="What to ask about each video whose line has no question; may be repeated.", show_default=False
        ),
    ] = None,
    videos: Annotated[
        Path | None, typer.Option(help="Folder that the videos' paths start from.", show_default="that of the list")
    ] = None,
    model: Model = None,
    frames: Frames = None,
    fps: Fps = None,
    batch_size: Annotated[int, typer.Option(help="Questions at a time.")] = 8,
    workers: Annotated[int, typer.Option(help="Threads that read videos.")] = 2,
    max_new_tokens: MaxNewTokens = None,
    block_length: BlockLength = None,
    max_denoising_steps: MaxDenoisingSteps = None,
    cache_strategy: CacheStrategy = None,
    unmasking: Unmasking = None,
    temperature: Temperature = None,
    seed: Annotated[int | None, typer.Option(help="Of the noise at a temperature above 0.")] = None,
    device: Device = None,
    dtype: Dtype = "auto",
    allow_urls: Annotated[bool, typer.Option("--allow-urls", help="Fetch videos at http(s) addresses.")] = False,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Try again what ended in an error before.")
    ] = False,
) -> None:
    """Ask about many videos, in one process or, under torchrun, in several. The same command goes on where it was."""
    check_frames(frames, fps)
    with user_errors(kept=f"The answers so far are in {out}; the same command goes on."):
        find_checkpoint(model)
        from ..inference.batch import Batch
        from ..inference.video_list import Process, list_requests

        process = Process.current()
        requests = list_requests(source, question or (), videos, allow_urls)
        settings: dict[str, Any] = given(
            max_new_tokens=max_new_tokens,
            block_length=block_length,
            max_denoising_steps=max_denoising_steps,
            temperature=temperature,
            seed=seed,
        )
        settings |= decoding_settings(cache_strategy, unmasking)
        settings |= {"processor_kwargs": given(num_frames=frames, fps=fps, allow_urls=allow_urls or None)}
        settings |= {"device": device, "dtype": dtype, "batch_size": batch_size, "workers": workers}
        work = Batch(requests, out, model, **settings)
        if process.rank == 0:
            tell_if_embedded(model)
            before = work.report()
            tell(f"{before.due + before.failed * retry_errors} of {len(requests)} answers are due.")
        report = work.run(process, retry_errors)
    if report.due:  # by other processes
        typer.echo(
            f"Process {process.rank} of {process.world} is done; {report.due} of {len(requests)} answers are due."
        )
        return
    typer.echo(f"All {len(requests)} lines are in {out}, {report.failed} with an error.")
