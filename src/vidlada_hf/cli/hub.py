"""`vidlada convert`, `export`, `verify` and `push`."""

from pathlib import Path
from typing import Annotated

import typer

from ..hub.locate import read_config
from .common import app, refuse, user_errors


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
    with user_errors(kept=f"{out_dir} keeps what was converted; the same command goes on."):
        read_config(official_dir)  # a wrong path is told before anything heavy is imported
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
    results: Annotated[
        Path | None, typer.Option(help="A file of `vidlada bench`, for the model card.", show_default=False)
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="The name of its questions.", show_default="their number and digest")
    ] = None,
) -> None:
    """Make a folder for the Hub, which loads where this package is not installed."""
    with user_errors(kept=f"{out_dir} was not made."):
        read_config(model_dir)
        from ..hub.export import export_checkpoint

        export_checkpoint(model_dir, out_dir, name, base_model, license, results, dataset)
    typer.echo(f"Exported {model_dir} to {out_dir}. To upload it: vidlada push {out_dir} USER/NAME")


@app.command()
def verify(folder: Annotated[Path, typer.Argument(help="Folder that was exported, converted or trained.")]) -> None:
    """Check the files of a checkpoint against its SHA256SUMS."""
    from ..hub.checksums import find_damage, find_extra

    with user_errors():
        problems = find_damage(folder) + find_extra(folder)
    for problem in problems:
        typer.echo(problem)
    if problems:
        refuse(f"{len(problems)} files of {folder} are not as its SHA256SUMS says: copy them again.", 1)
    typer.echo(f"All files of {folder} are as its SHA256SUMS says.")


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="Folder of `vidlada export`.")],
    repo_id: Annotated[str, typer.Argument(help="USER/NAME on the Hub; made if it is not there.")],
    private: Annotated[bool, typer.Option(help="Make a new repository private.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Check everything and say what would be uploaded.")] = False,
) -> None:
    """Upload an exported folder to the Hub, once its files and its model card are checked."""
    with user_errors(kept="Nothing was committed to the Hub; the same command goes on."):
        from ..hub.push import push_checkpoint

        upload = push_checkpoint(folder, repo_id, private or None, dry_run)
    for name, size in upload.files.items():
        typer.echo(f"{size:>15,}  {name}")
    done = "Nothing was uploaded; without --dry-run these go to" if dry_run else "Uploaded to"
    typer.echo(f"{len(upload.files)} files, {sum(upload.files.values()):,} bytes. {done} {upload.address}")
