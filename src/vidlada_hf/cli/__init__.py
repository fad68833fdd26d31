"""The command `vidlada`. Each command reads its arguments and calls the module that does the work.

torch and transformers are imported inside the commands, so that `vidlada --help` answers at once.
"""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NoReturn

import typer

app = typer.Typer(
    help="VidLaDA: ask questions about videos, and move checkpoints to the Hub and back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def refuse(message: object, code: int) -> NoReturn:
    """Ends the command with a message on stderr."""
    typer.echo(f"vidlada: {message}", err=True)
    raise typer.Exit(code)


# What a command may need beyond the package's own requirements -> the extra that brings it.
EXTRAS = {"yaml": "train", "accelerate": "train", "tensorboard": "train", "peft": "train", "datasets": "train"}
EXTRAS |= {"matplotlib": "demo"}


@contextmanager
def user_errors() -> Iterator[None]:
    """Turns the errors that a user can mend into their message; anything else keeps its traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        refuse(error, 1)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        refuse(f"{error.name} is not installed: pip install 'vidlada_hf[{EXTRAS[error.name]}]'", 1)


@app.command()
def ask(
    video: Annotated[str, typer.Argument(help="A video file, an address of one, or a folder of frames.")],
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
    model: Annotated[
        str | None, typer.Option(help="Folder of a checkpoint or its id on the Hub.", show_default="the embedded one")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Look at so many frames, spread evenly over the video.")] = None,
    fps: Annotated[float | None, typer.Option(help="Look at so many frames a second.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Length of the canvas, in tokens.")] = None,
    block_length: Annotated[int | None, typer.Option(help="Denoise the canvas in blocks of so many tokens.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps over the whole canvas.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 takes the most probable token.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the noise at a temperature above 0.")] = None,
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
        "max_denoising_steps": steps,
        "temperature": temperature,
        "seed": seed,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    with user_errors():
        from . import asking

        answer = asking.ask(video, question, model, num_frames=frames, fps=fps, stream=stream, **given)
    if as_json:
        typer.echo(json.dumps(asdict(answer), ensure_ascii=False))
    elif not stream:
        typer.echo(answer.answer)


@app.command()
def convert(
    official_dir: Annotated[Path, typer.Argument(help="Folder of an official checkpoint.")],
    out_dir: Annotated[Path, typer.Argument(help="Folder to write, or to continue after an interruption.")],
    vision_config: Annotated[
        Path | None,
        typer.Option(help="The vision tower's config.json or its folder.", show_default="read off the tensors"),
    ] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="The tokenizer's folder.", show_default="OFFICIAL_DIR")] = None,
) -> None:
    """Rewrite an official checkpoint in this package's format."""
    with user_errors():
        from ..hub.convert import convert_official_checkpoint

        convert_official_checkpoint(official_dir, out_dir, vision_config, tokenizer)
    typer.echo(f"Converted {official_dir} into {out_dir}.")


@app.command()
def export(
    model_dir: Annotated[Path, typer.Argument(help="Folder of a checkpoint in this package's format.")],
    out_dir: Annotated[Path, typer.Argument(help="Folder to make.")],
    name: Annotated[
        str | None, typer.Option(help="Its id on the Hub, for the model card.", show_default="OUT_DIR's name")
    ] = None,
    base_model: Annotated[
        list[str] | None, typer.Option(help="A model that it was made from; may be repeated.", show_default=False)
    ] = None,
    license: Annotated[str, typer.Option(help="Of the weights, as the Hub names it.")] = "apache-2.0",
) -> None:
    """Make a folder for the Hub, which loads where this package is not installed."""
    with user_errors():
        from ..hub.export import export_checkpoint

        export_checkpoint(model_dir, out_dir, name, base_model, license)
    typer.echo(f"Exported {model_dir} to {out_dir}. To upload it: hf upload REPO_ID {out_dir}")


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="YAML file that says where to start and what each stage does.")],
    processes: Annotated[int, typer.Option(help="Processes of this machine that share each batch.", min=1)] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell parameters, batches and memory.")] = False,
    device_memory: Annotated[
        float | None, typer.Option(help="With --dry-run: GiB of a device.", show_default="this machine's")
    ] = None,
) -> None:
    """Train a model, stage by stage. The same command goes on with a run that was interrupted."""
    with user_errors():
        from ..training.recipe import Recipe

        read = Recipe.from_yaml(recipe)  # its mistakes are told before anything is started
        if dry_run:
            from ..training.memory_estimate import GIB, describe, plan

            if device_memory is not None and not 0 < device_memory < math.inf:
                raise ValueError(f"`--device-memory` must be a number of GiB above 0, got {device_memory}.")
            available = None if device_memory is None else round(device_memory * GIB)
            typer.echo(describe(plan(read, processes), processes, available))
            return
        from ..training.launch import launch
        from ..training.run import train as run

        model = launch(recipe, processes) if processes > 1 else run(read)
    typer.echo(f"Trained. The model is in {model}.")


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for what it makes.")] = Path("demo-output"),
) -> None:
    """Make a short video and ask the embedded checkpoint about it."""
    with user_errors():
        from .demo import run_demo

        done = run_demo(output)
    typer.echo(f"Video:      {done.video}\nCheckpoint: {done.model}\n")
    for reply in done.replies:
        verdict = {0.0: "WRONG", 1.0: "right"}.get(reply.right, f"{reply.right:.0%} of the facts")
        typer.echo(f"Question: {reply.question}\n  answer:   {reply.answer}\n  expected: {reply.expected}  [{verdict}]")
    typer.echo(f"\nPicture of the last answer being denoised: {done.picture}")


@app.command()
def bench(
    model: Annotated[
        str | None,
        typer.Argument(help="Folder of a checkpoint or its id on the Hub.", show_default="the embedded one"),
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(
            help='JSONL, a line a question: {"video": path, "question": text} and, where known, "answer" and "type".',
            show_default="the test split of moving shapes",
        ),
    ] = None,
    videos: Annotated[
        Path | None, typer.Option(help="Folder that the videos' paths start from.", show_default="that of the JSONL")
    ] = None,
    count: Annotated[
        int | None, typer.Option(help="Ask the first so many questions.", show_default="all; 42 of moving shapes")
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            help="A cache strategy, or with settings such as 'mars:{\"anchors\": 8}'; may be repeated.",
            show_default="all of them",
        ),
    ] = None,
    unmasking: Annotated[
        list[str] | None,
        typer.Option(help="A rule, or with its number such as threshold:0.8; may be repeated.", show_default="all"),
    ] = None,
    frames: Annotated[int, typer.Option(help="Frames of each video.", min=1)] = 8,
    max_new_tokens: Annotated[int, typer.Option(help="Length of the canvas, in tokens.")] = 128,
    block_length: Annotated[int | None, typer.Option(help="Denoise the canvas in blocks of so many tokens.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps over the whole canvas.")] = None,
    ending: Annotated[
        str,
        typer.Option(
            help="When an answer that has ended is left alone: at once (stop), when its block is finished (block), or "
            "never, so that all steps run (canvas)."
        ),
    ] = "stop",
    rounds: Annotated[int, typer.Option(help="Time everything so often, in turn.")] = 5,
    timed: Annotated[int, typer.Option(help="Count and time the first so many questions.")] = 8,
    batch_size: Annotated[int, typer.Option(help="Questions at a time.")] = 1,
    dtype: Annotated[str, typer.Option(help="Of the weights.", show_default="as stored")] = "auto",
    output: Annotated[
        Path, typer.Option(help="JSON file of the results; one that is there is completed. The plot goes beside it.")
    ] = Path("bench.json"),
) -> None:
    """Measure cache strategies and unmasking rules on a model: speed, operations, memory, agreement, accuracy."""
    given = {"max_new_tokens": max_new_tokens, "block_length": block_length, "max_denoising_steps": steps}
    with user_errors():
        from . import benching

        told = benching.bench(
            model=model,
            questions=questions,
            videos=videos,
            count=count,
            strategies=strategy,
            rules=unmasking,
            frames=frames,
            settings={name: value for name, value in given.items() if value is not None},
            ending=ending,
            rounds=rounds,
            timed=timed,
            batch_size=batch_size,
            dtype=dtype,
            output=output,
        )
    typer.echo(told)


@app.command()
def schedule(
    strategy: Annotated[str, typer.Option(help="A cache strategy.")] = "mars",
    config: Annotated[str | None, typer.Option(help="Its settings, as JSON.", show_default="its defaults")] = None,
    canvas: Annotated[int, typer.Option(help="Length of the canvas, in tokens.")] = 128,
    block: Annotated[int, typer.Option(help="Tokens a block.")] = 32,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.", show_default="one a token")] = None,
    frames: Annotated[int, typer.Option(help="Of a video that its operations are counted for.", min=0)] = 32,
    rows: Annotated[int, typer.Option(help="Rows of a frame.", min=1)] = 210,
    plot: Annotated[Path | None, typer.Option(help="Draw it too, into this file.")] = None,
) -> None:
    """Show which rows of which layers a cache strategy refreshes in which step."""
    typed = strategy if config is None else f"{strategy}:{config}"
    with user_errors():
        from ..evaluation import schedules
        from ..modeling.generation_vidlada import VidLaDAGenerationConfig

        settings = VidLaDAGenerationConfig(max_new_tokens=canvas, block_length=block, max_denoising_steps=steps)
        plan = schedules.plan_refreshes(typed, settings)
        typer.echo(schedules.print_refreshes(plan))
        saving = schedules.plan_saving(typed, settings, frames, rows)
        typer.echo(f"{saving:.1f} times fewer operations than exact decoding (8B, {frames} frames x {rows} rows)")
        if plot is not None:
            typer.echo(f"Drawn in {schedules.draw_refreshes(plan, typed, plot)}.")


if __name__ == "__main__":
    app()
