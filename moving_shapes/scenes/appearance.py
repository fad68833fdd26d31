"""What the shapes of a scene look like: colors and shapes that do not repeat, of combinations that the split may show.

The one exception are scenes of two groups. Where none of the first group is back, mostly one color and one shape of it
are, on others: to tell "back" from "not back", it takes colors and shapes together, not one by one.
"""

from dataclasses import replace

import numpy as np

from .splits import Look, Split
from .timelines import Role

_LOOK_ALIKES = 0.8  # of the scenes of two groups in which none is back
_ATTEMPTS = 1000


def draw_looks(rng: np.random.Generator, split: Split, roles: list[Role]) -> list[Role]:
    """Fills in `color`, `shape` and `new_color`; what happens is left as it is.

    At least one shape has a combination that is held out for the split, if it has any.
    """
    for _ in range(_ATTEMPTS):  # a dead end comes from the looks alone: whatever happens in the scene is kept
        found = _try_looks(rng, split, roles)
        if found is not None:
            return found
    raise RuntimeError(f"No looks for {roles} after {_ATTEMPTS} attempts.")


def _try_looks(rng: np.random.Generator, split: Split, roles: list[Role]) -> list[Role] | None:
    groups = [role.group for role in roles]
    crossed = "start" in groups and "both" not in groups and rng.random() < _LOOK_ALIKES
    drawn = [role for role in roles if not (crossed and role.group == "end")]
    special = int(rng.integers(len(drawn))) if split.held_out else -1
    colors: list[str] = []
    found: dict[int, Role] = {}
    for i in sorted(range(len(drawn)), key=lambda i: i != special):
        shapes = {known.shape for known in found.values()}
        pool = split.held_out if i == special else split.looks
        look = _pick(rng, [(c, s) for c, s in pool if c not in colors and s not in shapes])
        if look is None:
            return None
        colors.append(look[0])
        new_color = None
        if drawn[i].turn is not None:
            turned = _pick(rng, [(c, s) for c, s in split.looks if c not in colors and s == look[1]])
            if turned is None:
                return None
            new_color = turned[0]
            colors.append(new_color)
        found[i] = replace(drawn[i], color=look[0], shape=look[1], new_color=new_color)
    done = [found[i] for i in range(len(drawn))]
    if not crossed:
        return done
    ends = [role for role in roles if role.group == "end"]
    looks = _cross(rng, split, [(role.color, role.shape) for role in done], len(ends))
    if looks is None:
        return None
    return done + [replace(role, color=c, shape=s) for role, (c, s) in zip(ends, looks, strict=True)]


def _cross(rng: np.random.Generator, split: Split, known: list[Look], count: int) -> list[Look] | None:
    """One or two combinations that are not `known`, but have one color and one shape of them; None for a dead end."""
    colors, shapes = [color for color, _ in known], [shape for _, shape in known]
    if count == 1:
        look = _pick(rng, [(c, s) for c, s in split.looks if c in colors and s in shapes and (c, s) not in known])
        return None if look is None else [look]
    first = _pick(rng, [(c, s) for c, s in split.looks if c in colors and s not in shapes])
    second = _pick(rng, [(c, s) for c, s in split.looks if c not in colors and s in shapes])
    return None if first is None or second is None else [first, second]


def _pick(rng: np.random.Generator, options: list[Look]) -> Look | None:
    return options[rng.integers(len(options))] if options else None


__all__ = ["draw_looks"]
