"""The weights in a checkpoint's folder: which files a loader reads, and whether they are the model's of its config."""

import copy
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..modeling.configuration_vidlada import VidLaDAConfig
from ..modeling.generation_config_vidlada import VidLaDAGenerationConfig
from ..modeling.modeling_vidlada import VidLaDAForConditionalGeneration

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def find_weights(folder: Path) -> list[Path]:
    """The files that `from_pretrained` reads: model.safetensors, else the index and the shards that it names.

    Raises:
        FileNotFoundError: there are none; the index is missing, or shards that it names.
        ValueError: the index is damaged.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    index = folder / INDEX
    if not index.is_file():
        what = INDEX if any(folder.glob("model-*.safetensors")) else "model*.safetensors"
        raise FileNotFoundError(f"{folder} holds no {what}: pass a folder with all of the weights.")
    try:
        names = sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is no index of weights ({error}): copy it again.") from error
    if missing := [name for name in names if Path(name).name != name or not (folder / name).is_file()]:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}, which its {INDEX} names: copy the folder again.")
    return [*(folder / name for name in names), index]


def read_shapes(weights: Sequence[Path]) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape over all safetensors files, from their headers.

    Raises:
        ValueError: a file is damaged or cut short.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weights:
        if path.suffix == ".safetensors":
            try:
                with safe_open(path, framework="pt") as file:
                    shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            except SafetensorError as error:
                raise ValueError(f"{path} is damaged or cut short ({error}): copy it again.") from error
    return shapes


def check_shapes(folder: Path, config: VidLaDAConfig, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Loads tensors of these shapes, without memory and numbers, for the errors that loading has.

    Args:
        folder: where they are, for the messages.
        config: as it was read from the checkpoint's folder. A quantized one is not checked: its tensors are packed.
        shapes: see `read_shapes`.

    Raises:
        ValueError: tensors are missing, have another shape, or have no place in the model.
    """
    if getattr(config, "quantization_config", None) is None:
        tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        config = copy.deepcopy(config)  # loading writes to it
        config.name_or_path = str(folder)
        VidLaDAForConditionalGeneration.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            device_map="meta",
            generation_config=VidLaDAGenerationConfig.from_model_config(config),  # else the Hub is asked for one
        )


def count_parameters(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Numbers in all tensors."""
    return sum(map(math.prod, shapes.values()))


__all__ = ["check_shapes", "count_parameters", "find_weights", "read_shapes"]
