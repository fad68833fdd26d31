"""The cache strategies that have a name, and their settings."""

import difflib
import inspect
from collections.abc import Iterable
from typing import Any

from .cache_vidlada import DenoisingCache, NoCache
from .dllm_cache_vidlada import DLLMCache
from .kv_cache_vidlada import DualCache, PrefixCache
from .mars_cache_vidlada import MARSCache, MARSCacheConfig

# Name -> class, and the class of its settings where these are an object of their own.
CACHE_STRATEGIES: dict[str, tuple[Any, Any]] = {
    "none": (NoCache, None),
    "mars": (MARSCache, MARSCacheConfig),
    "prefix": (PrefixCache, None),
    "dual": (DualCache, None),
    "interval": (DLLMCache, None),
}


def resolve_cache_strategy(strategy: str | DenoisingCache, settings: dict[str, Any] | None = None) -> DenoisingCache:
    """A strategy by its name, made with its settings; or the object itself, whatever the settings.

    Args:
        settings: arguments of the strategy of this name, or fields of its config (`cache_config`).

    Raises:
        ValueError: an unknown name, with the known ones; an unknown setting, with the nearest known one; an impossible
            value of one.
    """
    known = ", ".join(map(repr, CACHE_STRATEGIES))
    if isinstance(strategy, str):
        if strategy not in CACHE_STRATEGIES:
            raise ValueError(f"Unknown `cache_strategy` {strategy!r}; known are {known}.")
        build, config = CACHE_STRATEGIES[strategy]
        settings = check_settings(strategy, settings, inspect.signature(config or build).parameters)
        return build(config(**settings)) if config else build(**settings)
    methods = ("check", "begin", "denoise", "end")
    if isinstance(strategy, type) or not all(callable(getattr(strategy, method, None)) for method in methods):
        got = f"the class {strategy.__name__}" if isinstance(strategy, type) else type(strategy).__name__
        raise ValueError(
            f"`cache_strategy` must be a name ({known}) or an object of a subclass of DenoisingCache, got {got}."
        )
    return strategy


def check_settings(strategy: str, settings: Any, known: Iterable[str]) -> dict[str, Any]:
    """The settings, {} for None; a ValueError if they are no dict or one is unknown."""
    if settings is not None and not isinstance(settings, dict):
        raise ValueError(f"`cache_config` must be a dict of settings, got {type(settings).__name__}.")
    for name in settings or {}:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known are: {', '.join(known) or 'none'}."
            raise ValueError(f"Unknown setting {name!r} in `cache_config` of {strategy!r}. {hint}")
    return settings or {}


__all__ = ["CACHE_STRATEGIES", "resolve_cache_strategy"]
