"""What the menus offer: every strategy and rule that has a name, explained by the first lines of its docstring."""

import inspect
import re
from typing import Any

from ..modeling.cache_strategies_vidlada import CACHE_STRATEGIES
from ..modeling.unmasking_vidlada import UNMASKING_STRATEGIES

_NAME = re.compile(r'Named "\w+"( \([^)]*\))?: ')
_REGISTRIES: dict[str, dict[str, tuple[Any, Any]]] = {
    "cache_strategy": CACHE_STRATEGIES,
    "unmasking": UNMASKING_STRATEGIES,
}
LABELS = {
    "cache_strategy": "Cache strategy: what a step recomputes",
    "unmasking": "Unmasking rule: what a step commits",
}


def menu(setting: str) -> list[str]:
    """The names that `cache_strategy` or `unmasking` may have."""
    return list(_REGISTRIES[setting])


def explain(setting: str, name: str) -> str:
    """What `name` does, and its source where it has one."""
    paragraph = (inspect.getdoc(_REGISTRIES[setting][name][0]) or "").partition("\n\n")[0].replace("\n", " ")
    named = _NAME.match(paragraph)
    source, text = (named[1] or "", paragraph[named.end() :]) if named else ("", paragraph)
    return text[:1].upper() + text[1:].rstrip(".") + source + "."


__all__ = ["LABELS", "explain", "menu"]
