"""The cache strategies that have a name, their settings, and which unmasking rules they serve."""

import inspect
from typing import Any

from .arguments_vidlada import refuse_unknown
from .cache_vidlada import DenoisingCache, NoCache
from .dllm_cache_vidlada import DLLMCache
from .kv_cache_vidlada import DualCache, PrefixCache
from .mars_cache_vidlada import MARSCache, MARSCacheConfig
from .unmasking_vidlada import UnmaskingStrategy

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
        if settings is not None and not isinstance(settings, dict):
            raise ValueError(f"`cache_config` must be a dict of settings, got {type(settings).__name__}.")
        known_settings = list(inspect.signature(config or build).parameters)
        refuse_unknown(settings or {}, known_settings, f"setting in `cache_config` of {strategy!r}:")
        return build(config(**settings or {})) if config else build(**settings or {})
    methods = ("check", "begin", "denoise", "end")
    if isinstance(strategy, type) or not all(callable(getattr(strategy, method, None)) for method in methods):
        got = f"the class {strategy.__name__}" if isinstance(strategy, type) else type(strategy).__name__
        raise ValueError(
            f"`cache_strategy` must be a name ({known}) or an object of a subclass of DenoisingCache, got {got}."
        )
    return strategy


def serves(strategy: DenoisingCache, rule: UnmaskingStrategy) -> bool:
    """Whether a strategy computes all that an unmasking rule looks at."""
    return not getattr(rule, "looks_again", False) or bool(vars(type(strategy)).get("computes_shadow", False))


def refuse_unserved(strategy: DenoisingCache, rule: UnmaskingStrategy) -> None:
    """Raises a ValueError for a rule that looks at what a strategy does not compute."""
    if not serves(strategy, rule):
        raise ValueError(
            f"{type(rule).__name__} (`unmasking`) looks at committed tokens again, which {type(strategy).__name__} "
            "(`cache_strategy`) does not compute: take `cache_strategy='none'`, or another rule such as "
            "`unmasking='threshold'`."
        )


__all__ = ["CACHE_STRATEGIES", "refuse_unserved", "resolve_cache_strategy", "serves"]
