"""The model that a run starts from: a checkpoint, or a function that builds one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..hub.locate import find_checkpoint
from ..modeling.modeling_vidlada import VidLaDAForConditionalGeneration
from ..processing.processing_vidlada import VidLaDAProcessor
from .recipe import find_named


def find_builder(start: str) -> Callable[[int], Any] | None:
    """The function of "module:function"; None for a checkpoint's folder or id, after a look whether it is there.

    Raises:
        ValueError: no such function.
        FileNotFoundError: no such folder.
    """
    if start.partition(":")[2] and not Path(start).exists():
        try:
            build = find_named("function", start, {})
        except ValueError:
            build = None
        if not callable(build):
            raise ValueError(f"`model` is {start!r}, which is no folder and no 'module:function' that can be called.")
        return build
    find_checkpoint(start)
    return None


def load_model(start: str, seed: int, dtype: str = "auto") -> tuple[VidLaDAForConditionalGeneration, VidLaDAProcessor]:
    """The model and its processor.

    Args:
        start: a folder, an id, or "module:function", which is called with the seed.
        dtype: of the weights of a checkpoint: "auto" for its own.
    """
    build = find_builder(start)
    if build is not None:
        return build(seed)
    model = VidLaDAForConditionalGeneration.from_pretrained(start, dtype=dtype)
    return model, VidLaDAProcessor.from_pretrained(start)


__all__ = ["find_builder", "load_model"]
