"""Colors and shapes of a scene: none repeats, and all combinations are of the split.

Scenes of two groups are the exception. Where no shape of the first group returns, the second group mostly has one color
and one shape of the first, but in other combinations: to tell whether a shape is back takes its color and its shape
together.
"""

from dataclasses import replace

import numpy as np

from .splits import Combination, Split
from .timelines import Role

_RECOMBINED = 0.8  # of the scenes of two groups in which no shape returns
_ATTEMPTS = 1000


def draw_appearance(rng: np.random.Generator, split: Split, roles: list[Role]) -> list[Role]:
    """Fills in `color`, `shape` and `new_color` of each role, and changes nothing else.

    At least one shape has a combination that is held out for the split, if it has any.
    """
    for _ in range(_ATTEMPTS):  # only the appearance leads to a dead end: the events are kept
        complete = _try_appearance(rng, split, roles)
        if complete is not None:
            return complete
    raise RuntimeError(f"No appearance for {roles} after {_ATTEMPTS} attempts.")


def _try_appearance(rng: np.random.Generator, split: Split, roles: list[Role]) -> list[Role] | None:
    groups = [role.group for role in roles]
    recombined = "start" in groups and "both" not in groups and rng.random() < _RECOMBINED
    first = [role for role in roles if not (recombined and role.group == "end")]
    complete = _draw_distinct(rng, split, first)
    if complete is None or not recombined:
        return complete
    ends = [role for role in roles if role.group == "end"]
    combinations = _recombine(rng, split, [(role.color, role.shape) for role in complete], len(ends))
    if combinations is None:
        return None
    return complete + [replace(role, color=c, shape=s) for role, (c, s) in zip(ends, combinations, strict=True)]


def _draw_distinct(rng: np.random.Generator, split: Split, roles: list[Role]) -> list[Role] | None:
    """Roles whose colors and shapes all differ; None for a dead end."""
    special = int(rng.integers(len(roles))) if split.held_out else -1
    colors: list[str] = []
    complete: dict[int, Role] = {}
    for i in sorted(range(len(roles)), key=lambda i: i != special):
        shapes = {role.shape for role in complete.values()}
        pool = split.held_out if i == special else split.combinations
        drawn = _pick(rng, [(c, s) for c, s in pool if c not in colors and s not in shapes])
        if drawn is None:
            return None
        color, shape = drawn
        colors.append(color)
        new_color = None
        if roles[i].change is not None:
            changed = _pick(rng, [(c, s) for c, s in split.combinations if c not in colors and s == shape])
            if changed is None:
                return None
            new_color = changed[0]
            colors.append(new_color)
        complete[i] = replace(roles[i], color=color, shape=shape, new_color=new_color)
    return [complete[i] for i in range(len(roles))]


def _recombine(
    rng: np.random.Generator, split: Split, known: list[Combination], count: int
) -> list[Combination] | None:
    """One or two combinations that are not `known`, but have one color and one shape of them; None for a dead end."""
    colors, shapes = [color for color, _ in known], [shape for _, shape in known]
    pool = split.combinations
    if count == 1:
        drawn = _pick(rng, [(c, s) for c, s in pool if c in colors and s in shapes and (c, s) not in known])
        return None if drawn is None else [drawn]
    first = _pick(rng, [(c, s) for c, s in pool if c in colors and s not in shapes])
    second = _pick(rng, [(c, s) for c, s in pool if c not in colors and s in shapes])
    return None if first is None or second is None else [first, second]


def _pick(rng: np.random.Generator, options: list[Combination]) -> Combination | None:
    return options[rng.integers(len(options))] if options else None


__all__ = ["draw_appearance"]
