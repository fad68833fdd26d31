"""Where conversations come from: a source named in a recipe becomes a dataset of `{"messages": [...]}`."""

from typing import Any

from torch.utils.data import Dataset

from ..recipe import find_named
from ..schema import check_arguments

# name in a recipe -> module and class; other classes are named "module:Class".
SOURCES = {
    "llava": "vidlada_hf.training.data.llava:LlavaConversations",
    "messages": "vidlada_hf.training.data.messages:MessageConversations",
}


def build_dataset(source: str, **options: Any) -> Dataset:
    """The dataset of a source.

    Args:
        source: a name of `SOURCES`, or "module:Class" of another dataset.
        options: arguments of its class.

    Raises:
        ValueError: an unknown source, the message lists the known ones; options that its class does not take.
        OSError: files that are missing or hold mistakes.
    """
    build = find_named("source", source, SOURCES)
    check_arguments(options, build, f"`data` of the source {source!r}")
    return build(**options)


__all__ = ["SOURCES", "build_dataset"]
