"""A checkpoint as a folder for the Hub: what `save_pretrained` writes, the code included, and a model card."""

import json
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from safetensors import safe_open

from ..modeling.configuration_vidlada import VidLaDAConfig
from ..modeling.generation_config_vidlada import VidLaDAGenerationConfig
from ..modeling.official_checkpoint_vidlada import is_official_config
from ..processing.processing_vidlada import VidLaDAProcessor
from .checksums import sync_folder, write_checksums
from .model_card import fill_model_card, read_results


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

    Only what makes the checkpoint goes along; other files beside it, such as a demo clip, do not. Weights are copied
    and not read. (They are not hard-linked: a later `save_pretrained` into one of the two folders would then change
    the other.)

    Args:
        model_dir: a checkpoint in this package's format, with its processor.
        out_dir: the folder to make; it may exist if it is empty.
        name: the id that the model will have on the Hub, for the model card; None: `out_dir`'s name.
        base_models, license: for the model card, see `fill_model_card`.
        results, dataset: a file of `vidlada bench` and the name of its questions, for the model card.

    Returns:
        `out_dir`.

    Raises:
        FileNotFoundError: `model_dir` lacks config, weights or processor.
        FileExistsError: `out_dir` holds something.
        ValueError: `model_dir` is an official checkpoint, or another model; or there are no accuracies in `results`.
    """
    model_dir, out_dir = Path(model_dir), Path(out_dir)
    weights = find_weights(model_dir)
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise FileExistsError(f"{out_dir} is not an empty folder: pass another one.")
    config = VidLaDAConfig.from_pretrained(model_dir)
    processor = VidLaDAProcessor.from_pretrained(model_dir)

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
            config, processor, count_parameters(weights), size, name or out_dir.name, base_models, license, measured
        )
        card.save(partial / "README.md")
        write_checksums(partial)
        os.replace(partial, out_dir)
        sync_folder(out_dir.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out_dir


def find_weights(model_dir: Path) -> list[Path]:
    """The weights of a checkpoint in our format and their index; checks that it is one."""
    path = model_dir / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{model_dir} holds no config.json: pass the folder of a VidLaDA checkpoint.")
    config = json.loads(path.read_text(encoding="utf-8"))
    if is_official_config(config):
        raise ValueError(f"{model_dir} is an official checkpoint: run `vidlada convert {model_dir} DIR` first.")
    if config.get("model_type") != VidLaDAConfig.model_type:
        raise ValueError(f"{path} says `model_type` {config.get('model_type')!r}, not {VidLaDAConfig.model_type!r}.")
    if not (model_dir / "processor_config.json").is_file():
        raise FileNotFoundError(
            f"{model_dir} holds no processor_config.json: save the processor there too, by `processor.save_pretrained`."
        )
    shards = sorted(
        model_dir.glob("model*.safetensors")
    )  # not weights of something else, such as heads of a training stage
    if not shards:
        raise FileNotFoundError(f"{model_dir} holds no model*.safetensors: pass the folder with the weights.")
    return [*shards, *model_dir.glob("*.safetensors.index.json")]


def save_generation_config(model_dir: Path, config: VidLaDAConfig, folder: Path) -> None:
    """The checkpoint's own generation config, else the defaults with its special ids."""
    if (model_dir / "generation_config.json").is_file():
        VidLaDAGenerationConfig.from_pretrained(model_dir).save_pretrained(folder)
    else:
        VidLaDAGenerationConfig.from_model_config(config).save_pretrained(folder)


def count_parameters(weights: Sequence[Path]) -> int:
    """Numbers in all tensors, from the files' headers."""
    total = 0
    for path in weights:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return total
