"""What happens in a scene, and when: one function a kind, before anything has a color, a shape or a place.

Times are in beats, 0 to 7: eight evenly sampled frames are at the whole numbers. Events of a scene are at the same
moment or at least `GAP` apart, and `EDGE` from both ends, so eight frames show what is before, between and after.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .scene import MOTIONS

END = 7.0
GAP = 1.5
EDGE = 1.2
MOTION_LIFE = 2.0  # the shortest stay whose motion is told: two of eight frames


@dataclass(frozen=True)
class Role:
    """What happens to one shape.

    Args:
        stays: when it is in the picture, (start, end) each, in beats, in order.
        motion: of `MOTIONS`, or None if it is not to be told.
        turn: when it changes color, in beats.
        group: "start" or "end" in scenes of two groups, "both" for what returns.
        color, shape, new_color: what it looks like; filled in later.
    """

    stays: tuple[tuple[float, float], ...]
    motion: str | None = None
    turn: float | None = None
    group: str | None = None
    color: str = ""
    shape: str = ""
    new_color: str | None = None


def event_times(rng: np.random.Generator, count: int, gap: float = GAP, edge: float = EDGE) -> list[float]:
    """`count` (at most 4) ascending moments, `gap` apart and `edge` from the ends, in beats."""
    slack = END - 2 * edge - gap * (count - 1)
    return (edge + np.sort(rng.uniform(0, slack, count)) + gap * np.arange(count)).tolist()


def steady(rng: np.random.Generator, count: int) -> list[Role]:
    """All shapes are there from start to end."""
    return [_role(rng, 0, END) for _ in range(count)]


def arrivals(rng: np.random.Generator, count: int) -> list[Role]:
    """Shapes appear one after another. They stay, or each leaves when the next appears."""
    relay = count < 4 and rng.random() < 0.3
    is_late = count == 1 or (count < 4 and rng.random() < 0.3)
    late = count if is_late else count - 1
    roomy = relay and late <= 2
    times = event_times(rng, late, gap=MOTION_LIFE, edge=MOTION_LIFE) if roomy else event_times(rng, late)
    starts = times if is_late else [0.0, *times]
    ends = [*starts[1:], END] if relay else [END] * count
    return [_role(rng, start, end) for start, end in zip(starts, ends, strict=True)]


def departures(rng: np.random.Generator, count: int) -> list[Role]:
    """All shapes are there at the start, and one or two of them disappear."""
    times = event_times(rng, min(count, int(rng.integers(1, 3))), edge=MOTION_LIFE)
    return [_role(rng, 0, time) for time in times] + [_role(rng, 0, END) for _ in range(count - len(times))]


def turns(rng: np.random.Generator, count: int) -> list[Role]:
    """All shapes are there from start to end, and one, rarely two, of them change color."""
    times = event_times(rng, min(count, 2 if rng.random() < 0.25 else 1))
    roles = steady(rng, count)
    return [replace(role, turn=time) for role, time in zip(roles, times, strict=False)] + roles[len(times) :]


def meetings(rng: np.random.Generator, count: int) -> list[Role]:
    """One shape changes color, and another appears before or after that. The others are there all the time."""
    times = event_times(rng, 2)
    turn, arrival = times if rng.random() < 0.5 else times[::-1]
    roles = steady(rng, count - 1)
    return [replace(roles[0], turn=turn), *roles[1:], _role(rng, arrival, END)]


def blinks(rng: np.random.Generator, count: int) -> list[Role]:
    """Every shape appears once, twice or three times, elsewhere each time, and stays still there."""
    edges = [0.0, *event_times(rng, 4), END]
    return [_from_slots(_pattern(rng, int(rng.integers(1, 4))), edges) for _ in range(count)]


def reruns(rng: np.random.Generator, count: int) -> list[Role]:
    """One shape at a time: `count` different ones take turns, and some come back. They stay still."""
    edges = [0.0, *event_times(rng, 3), END]
    programs = _PROGRAMS[count]
    program = programs[rng.integers(len(programs))]
    return [_from_slots([item == shape for item in program], edges) for shape in range(count)]


def groups(rng: np.random.Generator, count: int) -> list[Role]:
    """One or two shapes leave, and then one or two come: in half of the scenes one of them is back.

    They stay still. How many there are at the start and at the end does not depend on whether one is back.
    """
    returns = bool(rng.random() < _RETURNS[count])
    at_start, at_end = _GROUP_SIZES[count + returns]
    if rng.random() < 0.5:
        at_start, at_end = at_end, at_start
    times = event_times(rng, 2, edge=MOTION_LIFE) if rng.random() < 0.5 else event_times(rng, 1, edge=MOTION_LIFE) * 2
    start, end = (0.0, times[0]), (times[1], END)
    roles = [Role((start, end), group="both")] if returns else []
    roles += [Role((start,), group="start")] * (at_start - returns)
    return roles + [Role((end,), group="end")] * (at_end - returns)


def stories(rng: np.random.Generator, count: int) -> list[Role]:
    """Much happens: shapes appear, change color (three at most) and disappear, no four being there at a time."""
    moments = [0.0, *event_times(rng, 4), END]
    at_start = 2 if count == 5 or rng.random() < 0.5 else 1
    later = 1 + np.sort(rng.choice(3, count - at_start, replace=False))
    there = [0] * (len(moments) - 1)
    slots: list[list[int]] = []  # first slot, one past the last
    for first in [0] * at_start + later.tolist():
        there[first] += 1
        there[first + 1] += 1
        slots.append([first, first + 2])
    roles: list[Role] = []
    for first, last in slots:
        while last < len(there) and there[last] < 3 and rng.random() < 0.6:
            there[last] += 1
            last += 1
        inside = moments[first + 1 : last]
        turned = sum(role.turn is not None for role in roles)
        turn = inside[rng.integers(len(inside))] if turned < 3 and rng.random() < 0.8 else None
        roles.append(replace(_role(rng, moments[first], moments[last]), turn=turn))
    return roles


def _role(rng: np.random.Generator, start: float, end: float) -> Role:
    """One stay, with a motion if it is long enough."""
    motion = MOTIONS[rng.integers(len(MOTIONS))]
    return Role(((start, end),), motion if end - start >= MOTION_LIFE - 1e-9 else None)


def _from_slots(pattern: list[bool], edges: list[float]) -> Role:
    """A shape that is there in the slots of `pattern`; slots in a row are one stay."""
    stays: list[tuple[float, float]] = []
    for shown, start, end in zip(pattern, edges[:-1], edges[1:], strict=True):
        if shown and stays and stays[-1][1] == start:
            stays[-1] = (stays[-1][0], end)
        elif shown:
            stays.append((start, end))
    return Role(tuple(stays))


def _runs(pattern: list[bool]) -> int:
    return sum(now and not before for before, now in zip([False, *pattern[:-1]], pattern, strict=True))


def _pattern(rng: np.random.Generator, runs: int) -> list[bool]:
    """A random pattern of five slots with that many runs."""
    fitting = _PATTERNS[runs]
    return fitting[rng.integers(len(fitting))]


_PATTERNS: dict[int, list[list[bool]]] = {runs: [] for runs in (0, 1, 2, 3)}
for _number in range(1, 32):
    _bits = [bool(_number >> bit & 1) for bit in range(5)]
    _PATTERNS[_runs(_bits)].append(_bits)

# Who is there in each of four slots (-1: nobody), never the same twice in a row. New shapes come in order.
_PROGRAMS: dict[int, list[tuple[int, ...]]] = {
    1: [(0, -1, 0, -1), (-1, 0, -1, 0), (0, -1, -1, 0)],
    2: [(0, 1, 0, 1), (0, 1, 0, -1), (0, 1, -1, 0), (0, -1, 1, 0), (-1, 0, 1, 0), (0, 1, -1, 1), (0, -1, 0, 1)],
    3: [(0, 1, 2, 0), (0, 1, 0, 2), (0, 1, 2, 1), (0, 1, 2, -1), (0, -1, 1, 2)],
    4: [(0, 1, 2, 3)],
}
# Shapes at the start and shapes at the end, by their sum. With sums of 3, 3, 4 as likely whether one returns or not,
# there are 2, 2, 3, 3, 3, 4 different shapes, and this is how likely it is that one of them returns.
_GROUP_SIZES = {3: (1, 2), 4: (2, 2)}
_RETURNS = {2: 1.0, 3: 1 / 3, 4: 0.0}

Timeline = Callable[[np.random.Generator, int], list[Role]]
# kind -> (how many different shapes it can have, as often as it should have them, and the function)
TIMELINES: dict[str, tuple[tuple[int, ...], Timeline]] = {
    "steady": ((1, 2, 3, 4), steady),
    "arrivals": ((1, 2, 3, 4), arrivals),
    "departures": ((1, 2, 3, 4), departures),
    "turns": ((1, 2, 3), turns),
    "meetings": ((2, 3), meetings),
    "blinks": ((1, 2, 3), blinks),
    "reruns": ((1, 2, 3, 4), reruns),
    "groups": ((2, 2, 3, 3, 3, 4), groups),
    "stories": ((4, 5), stories),
}

__all__ = ["END", "GAP", "MOTION_LIFE", "TIMELINES", "Role", "event_times"]
