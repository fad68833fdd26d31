"""A checkpoint as a folder for the Hub: what `save_pretrained` writes, the code included, and a model card."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from ..modeling.configuration_vidlada import VidLaDAConfig
from ..modeling.generation_config_vidlada import VidLaDAGenerationConfig
from ..modeling.official_checkpoint_vidlada import is_official_config
from ..processing.processing_vidlada import VidLaDAProcessor
from .checksums import CHECKSUMS, find_damage, find_extra, sync_folder, write_checksums
from .locate import read_config
from .model_card import fill_model_card, read_results
from .weights import check_shapes, count_parameters, find_weights, read_shapes


def export_checkpoint(
    model_dir: str | os.PathLike,
    out_dir: str | os.PathLike,
    name: str | None = None,
    base_models: Sequence[str] | None = None,
    license: str = "apache-2.0",
    results: str | os.PathLike | None = None,
    dataset: str | None = None,
) -> Path:
    """Writes the folder, all of it or nothing, with its checksums (see `checksums`).

    Only what makes the checkpoint goes along; other files beside it, such as a demo clip, do not. What would not load,
    or is not as the folder's own checksums say, is refused. Weights are copied, and of what they hold only names and
    shapes are looked at. (They are not hard-linked: a later `save_pretrained` into one of the two folders would then
    change the other.)

    Args:
        model_dir: a checkpoint in this package's format, with its processor.
        out_dir: the folder to make; it may exist if it is empty.
        name: the id that the model will have on the Hub, for the model card; None: `out_dir`'s name.
        base_models, license: for the model card, see `fill_model_card`.
        results, dataset: a file of `vidlada bench` and the name of its questions, for the model card.

    Returns:
        `out_dir`.

    Raises:
        FileNotFoundError: `model_dir` lacks config, processor or files of its weights.
        FileExistsError: `out_dir` holds something.
        ValueError: `model_dir` is an official checkpoint, or another model; it would not load, since files are damaged
            or the tensors are not those of its config; it is not as its SHA256SUMS says; or there are no accuracies in
            `results`.
    """
    model_dir, out_dir = Path(model_dir), Path(out_dir)
    check_folder(model_dir)
    weights = find_weights(model_dir)
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise FileExistsError(f"{out_dir} is not an empty folder: pass another one.")
    config = VidLaDAConfig.from_pretrained(model_dir)
    processor = VidLaDAProcessor.from_pretrained(model_dir)
    shapes = read_shapes(weights)
    check_shapes(model_dir, config, shapes)
    check_sums(model_dir)

    measured = () if results is None else read_results(results, dataset)
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    partial = out_dir.with_name(f".{out_dir.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of an export that was killed
    try:
        processor.save_pretrained(partial)
        save_generation_config(model_dir, config, partial)
        config.save_pretrained(partial)
        for path in weights:
            shutil.copyfile(path, partial / path.name)
        size = sum(path.stat().st_size for path in weights)
        card = fill_model_card(
            config, processor, count_parameters(shapes), size, name or out_dir.name, base_models, license, measured
        )
        card.save(partial / "README.md")
        write_checksums(partial)
        os.replace(partial, out_dir)
        sync_folder(out_dir.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out_dir


def check_folder(model_dir: Path) -> None:
    """Raises where a folder is no checkpoint in our format with its processor; for errors see `export_checkpoint`."""
    config = read_config(model_dir)
    if is_official_config(config):
        raise ValueError(f"{model_dir} is an official checkpoint: run `vidlada convert {model_dir} DIR` first.")
    if config.get("model_type") != VidLaDAConfig.model_type:
        raise ValueError(
            f"{model_dir / 'config.json'} says `model_type` {config.get('model_type')!r}, not "
            f"{VidLaDAConfig.model_type!r}."
        )
    if not (model_dir / "processor_config.json").is_file():
        raise FileNotFoundError(
            f"{model_dir} holds no processor_config.json: save the processor there too, by `processor.save_pretrained`."
        )


def check_sums(model_dir: Path) -> None:
    """Raises a ValueError where a folder is not as its SHA256SUMS says, if it has one."""
    if not (model_dir / CHECKSUMS).is_file():
        return
    if problems := find_damage(model_dir) + find_extra(model_dir):
        raise ValueError(
            f"{model_dir} is not as its {CHECKSUMS} says ({'; '.join(problems)}): copy it again, or remove "
            f"{CHECKSUMS} if you changed the files yourself."
        )


def save_generation_config(model_dir: Path, config: VidLaDAConfig, folder: Path) -> None:
    """The checkpoint's own generation config, else the defaults with its special ids."""
    if (model_dir / "generation_config.json").is_file():
        VidLaDAGenerationConfig.from_pretrained(model_dir).save_pretrained(folder)
    else:
        VidLaDAGenerationConfig.from_model_config(config).save_pretrained(folder)
