"""What a checkpoint must hold: all tensors of the class that wrote it. Others may be new, such as another head's."""

import copy
from collections.abc import Iterator
from typing import Any

import torch

USUAL_ARCHITECTURE = "VidLaDAForConditionalGeneration"  # where config.json names none


def required_names(model: Any, family: Any) -> set[str]:
    """The tensors of a model that its checkpoint must hold, since the class that wrote it has them.

    Args:
        model: as it was loaded, with the config of the checkpoint.
        family: the class of which all models inherit. Of a class outside it, only that is known which all share: the
            model without a head.

    Returns:
        Names as in the model's state dict.
    """
    names, written_by = set(model.state_dict()), set(model.config.architectures or [USUAL_ARCHITECTURE])
    if type(model).__name__ in written_by:
        return names
    known = (each for each in subclasses(family) if isinstance(model.config, each.config_class))
    writer = next((each for each in known if each.__name__ in written_by), type(model.base_model))
    with torch.device("meta"):
        written = writer(copy.deepcopy(model.config)).state_dict()
    prefix = f"{model.base_model_prefix}."  # the model without a head writes no prefix
    bare = {name.removeprefix(prefix) for name in written}
    return {name for name in names if name.removeprefix(prefix) in bare}


def subclasses(cls: Any) -> Iterator[Any]:
    """All classes below a class."""
    for child in cls.__subclasses__():
        yield child
        yield from subclasses(child)


__all__ = ["required_names"]
