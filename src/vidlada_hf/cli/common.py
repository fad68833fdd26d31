"""What all commands share: the application, and how errors become messages."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

app = typer.Typer(
    help="VidLaDA: ask questions about videos, measure, train, and move checkpoints to the Hub and back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

EXTRA_MODULES = {"accelerate", "datasets", "matplotlib", "peft", "pydantic", "tensorboard", "yaml"}


def refuse(message: object, code: int) -> NoReturn:
    """Ends the command with a message on stderr."""
    typer.echo(f"vidlada: {message}", err=True)
    raise typer.Exit(code)


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
        if error.name not in EXTRA_MODULES:
            raise
        refuse(f"{error.name} is not installed: pip install 'vidlada_hf[{extra}]'", 1)
