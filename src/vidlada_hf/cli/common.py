"""What all commands share: the application, and how errors become messages."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from wrapt import when_imported

from .. import __version__

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# What a command cannot do without, by the extra that installs it; `datasets` only for some sources of questions. No
# extra installs lmms_eval: its own requirements contradict ours.
EXTRAS = {
    "eval-env": ("lmms_eval",),
    "demo": ("matplotlib",),
    "eval": ("matplotlib",),
    "page": ("gradio",),
    "train": ("yaml", "pydantic", "datasets", "peft", "tensorboard"),
}
EXTRA_MODULES = {module for modules in EXTRAS.values() for module in modules}


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
    when_imported("transformers")(lambda _: _show_no_loading())


def _show_no_loading() -> None:
    """Switches off transformers' bars of loading weights, and leaves those of downloads."""
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    enable_progress_bars()


def tell(message: object) -> None:
    """A line on stderr."""
    typer.echo(f"vidlada: {message}", err=True)


def tell_if_embedded(model: str | None) -> None:
    """Says whose answers these will be, where no model was named."""
    if model is None:
        tell("the embedded checkpoint answers. It knows moving shapes only; name your model with --model")


def refuse(message: object, code: int) -> NoReturn:
    """Ends the command with a message on stderr."""
    tell(message)
    raise typer.Exit(code)


def require_video(video: str) -> None:
    """Raises a FileNotFoundError for a path where nothing is, before anything heavy is imported."""
    if "://" not in video and not os.path.exists(video):
        raise FileNotFoundError(f"Cannot read the video {video!r}: no such file or folder. Check the path.")


def require_file(path: Path) -> None:
    """Raises a FileNotFoundError where no file is, before anything heavy is imported."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}. Check the path.")


def require_extra(extra: str) -> None:
    """Raises a ModuleNotFoundError where an extra is not installed, before anything heavy is imported."""
    for module in EXTRAS[extra]:
        if find_spec(module) is None:
            raise ModuleNotFoundError(name=module)


@contextmanager
def user_errors(extra: str = "", kept: str = "") -> Iterator[None]:
    """Turns errors that a user can mend, and Ctrl-C, into a message; anything else keeps its traceback.

    Args:
        extra: the package's extra that installs what the command needs besides.
        kept: what is left of the command's work after Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        refuse(f"Stopped. {kept}".strip(), 130)
    except (ValueError, OSError) as error:
        refuse(error, 1)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "lmms_eval":
            refuse("lmms_eval is not installed here: `make eval-env` makes an environment that has it", 1)
        if package not in EXTRA_MODULES:
            raise
        refuse(f"{package} is not installed: pip install 'vidlada_hf[{extra}]'", 1)
