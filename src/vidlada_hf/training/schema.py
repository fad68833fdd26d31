"""Checks of what a recipe says, so that a mistake is named before anything runs."""

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

# Types of numbers that a recipe gives.
Count = Annotated[int, Field(strict=True, ge=1)]
Amount = Annotated[int, Field(strict=True, ge=0)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Weight = Annotated[float, Field(strict=True, ge=0)]
Counts = Annotated[Sequence[Count], Field(min_length=1)]


def check_arguments(
    given: Any, taker: Callable[..., Any], where: str, besides: Collection[str] = (), more: Collection[str] = ()
) -> None:
    """Whether a class or a function can be called with these keyword arguments.

    Args:
        given: the arguments as YAML says them.
        taker: the class or function.
        where: they stand, for the message.
        besides: names that are not the recipe's to give.
        more: further known names, of what `taker` passes on. One that passes names on takes any if this is empty.

    Raises:
        ValueError: no mapping; an unknown name, with the nearest known one; a missing one; another type than declared.
    """
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} must be a mapping of keys to values, got {given!r}.")
    parameters = [p for p in inspect.signature(taker).parameters.values() if p.name not in besides]
    named = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    if len(named) == len(parameters) or more:
        refuse_unknown(given, [*(p.name for p in named), *more], where)
    for parameter in named:
        if parameter.default is parameter.empty and parameter.name not in given:
            raise ValueError(f"{where} lacks the key `{parameter.name}`.")
    function = taker.__init__ if isinstance(taker, type) else taker  # type: ignore[misc]
    types = get_type_hints(function, include_extras=True)
    for parameter in named:
        if parameter.name in given and parameter.name in types:
            check_type(given[parameter.name], types[parameter.name], f"`{parameter.name}` in {where}")


def check_type(value: Any, declared: Any, what: str) -> None:
    """Raises a ValueError for a value of another type, also for a text in place of a number: YAML reads 1e-5 as one."""
    try:
        adapter = TypeAdapter(declared, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # a type of a user's own that checks itself
        return
    try:
        understood = adapter.validate_python(value)
    except ValidationError as error:
        raise ValueError(f"{what} is {value!r}: {error.errors()[0]['msg']}.") from error
    if isinstance(value, str) and isinstance(understood, (int, float)):
        raise ValueError(f"{what} is the text {value!r}: write a number, such as {float(understood):.1e}.")


def refuse_unknown(given: Collection[Any], known: Collection[str], where: str) -> None:
    """Raises a ValueError for the first key of `given` that is not known."""
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(known)}."
            raise ValueError(f"Unknown key `{key}` in {where}: {hint}")


__all__ = ["Amount", "Count", "Counts", "Share", "Weight", "check_arguments", "refuse_unknown"]
