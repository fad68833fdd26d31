"""What a checkpoint must hold: all tensors of the class that wrote it, and no more of the parts that a model has.

Others may be new, such as another head's.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


def surplus_names(model: Any, unexpected: Iterable[str]) -> set[str]:
    """Of the tensors that a model has no place for, those of its own parts, such as a layer that its config lacks.

    A head of another class may be left out.

    Args:
        model: as it was loaded.
        unexpected: names in the checkpoint, ours.
    """
    if getattr(model.config, "quantization_config", None) is not None:  # its tensors have companions
        return set()
    prefix = f"{model.base_model_prefix}."
    parts = {name for part in (model, model.base_model) for name, _ in part.named_children()}
    return {name for name in unexpected if name.removeprefix(prefix).split(".")[0] in parts}


def refuse_other_shapes(name: Any, mismatched: Iterable[tuple[str, Sequence[int], Sequence[int]]]) -> None:
    """Raises a ValueError if tensors of a checkpoint have other shapes than the model's.

    Args:
        name: of the checkpoint.
        mismatched: tensor, its shape in the checkpoint, and in the model.
    """
    lines = [f"{tensor}: {tuple(given)} instead of {tuple(wanted)}" for tensor, given, wanted in sorted(mismatched)]
    if lines:
        raise ValueError(
            f"The checkpoint {name} holds {len(lines)} tensors of other shapes than its config.json says: "
            f"{', '.join(lines[:8])}{', ...' if len(lines) > 8 else ''}. The two are not of one model: copy the right "
            "config.json."
        )


def refuse_other_type(fields: Mapping[str, Any], config_class: Any, root: type, what: str = "config.json") -> None:
    """Raises a ValueError for the fields of another model's config, which transformers would only warn of.

    Args:
        config_class: that is to be made of the fields.
        root: the first class of this model's configs: a subclass may have a model type of its own.
    """
    given = fields.get("model_type")
    known = {each.model_type for each in config_class.__mro__ if issubclass(each, root)}
    if given is not None and given not in known:
        raise ValueError(
            f"`model_type` in {what} is {given!r}, and {config_class.__name__} is the config of "
            f"{config_class.model_type!r}: load another model's folder with its own class or an Auto class, or correct "
            "the file."
        )


def subclasses(cls: Any) -> Iterator[Any]:
    """All classes below a class."""
    for child in cls.__subclasses__():
        yield child
        yield from subclasses(child)


__all__ = ["refuse_other_shapes", "refuse_other_type", "required_names", "surplus_names"]
