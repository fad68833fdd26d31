"""The command `vidlada`. Each command reads its arguments and calls the module that does the work.

torch and transformers are imported inside the commands, so that `vidlada --help` answers at once.
"""

import json
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


@contextmanager
def user_errors() -> Iterator[None]:
    """Turns the errors that a user can mend into their message; anything else keeps its traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        refuse(error, 1)


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
        from .hub.convert import convert_official_checkpoint

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
        from .hub.export import export_checkpoint

        export_checkpoint(model_dir, out_dir, name, base_model, license)
    typer.echo(f"Exported {model_dir} to {out_dir}. To upload it: hf upload REPO_ID {out_dir}")


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="YAML file that says where to start and what each stage does.")],
    processes: Annotated[int, typer.Option(help="Processes of this machine that share each batch.", min=1)] = 1,
) -> None:
    """Train a model, stage by stage. The same command goes on with a run that was interrupted."""
    with user_errors():
        from .training.recipe import Recipe

        read = Recipe.from_yaml(recipe)  # its mistakes are told before anything is started
        from .training import run

        if processes > 1:
            run.launch(recipe, processes)
        else:
            run.train(read)
    typer.echo(f"Trained. The model is in {run.final_model(read)}.")


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


if __name__ == "__main__":
    app()
