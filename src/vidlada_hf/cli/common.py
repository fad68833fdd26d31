"""What all commands share: the application, and how errors become messages."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer

from .. import __version__

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

EXTRA_MODULES = {"accelerate", "datasets", "matplotlib", "peft", "pydantic", "tensorboard", "yaml"}


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vidlada_hf {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """VidLaDA: ask questions about videos, measure, train, and move checkpoints to the Hub and back."""


def refuse(message: object, code: int) -> NoReturn:
    """Ends the command with a message on stderr."""
    typer.echo(f"vidlada: {message}", err=True)
    raise typer.Exit(code)


def require_video(video: str) -> None:
    """Raises a FileNotFoundError for a path where nothing is, before anything heavy is imported."""
    if "://" not in video and not os.path.exists(video):
        raise FileNotFoundError(f"Cannot read the video {video!r}: no such file or folder. Check the path.")


@contextmanager
def user_errors(extra: str = "") -> Iterator[None]:
    """Turns errors that a user can mend into their message; anything else keeps its traceback.

    Args:
        extra: the package's extra that installs what the command needs besides.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        refuse(error, 1)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRA_MODULES:
            raise
        refuse(f"{package} is not installed: pip install 'vidlada_hf[{extra}]'", 1)
