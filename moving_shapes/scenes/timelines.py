"""The events of a scene and their times, one function for each kind of scene. Colors, shapes and positions come later.

Times are in beats, 0 to 7: eight evenly sampled frames are at the whole numbers. Events of a scene are at the same
time or at least `GAP` apart, and `EDGE` from both ends, so eight frames show the scene before, between and after them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .scene import MOTIONS

END = 7.0
GAP = 1.5
EDGE = 1.2
MOTION_DURATION = 2.0  # the shortest visit whose motion is asked about: two of eight frames


@dataclass(frozen=True)
class Role:
    """The events of one shape.

    Args:
        visits: when it is in the frame, (start, end) each, in beats, in order.
        motion: of `MOTIONS`, or None if no question may ask about it.
        change: when it changes color, in beats.
        group: "start" or "end" in scenes of two groups, "both" for a shape that returns.
        color, shape, new_color: its appearance; filled in later.
    """

    visits: tuple[tuple[float, float], ...]
    motion: str | None = None
    change: float | None = None
    group: str | None = None
    color: str = ""
    shape: str = ""
    new_color: str | None = None


def event_times(rng: np.random.Generator, count: int, gap: float = GAP, edge: float = EDGE) -> list[float]:
    """`count` (at most 4) ascending times, `gap` apart and `edge` from the ends, in beats."""
    slack = END - 2 * edge - gap * (count - 1)
    return (edge + np.sort(rng.uniform(0, slack, count)) + gap * np.arange(count)).tolist()


def steady(rng: np.random.Generator, count: int) -> list[Role]:
    """All shapes are visible from start to end."""
    return [_role(rng, 0, END) for _ in range(count)]


def arrivals(rng: np.random.Generator, count: int) -> list[Role]:
    """Shapes appear one after another. All stay, or each leaves when the next one appears."""
    relay = count < 4 and rng.random() < 0.3
    is_late = count == 1 or (count < 4 and rng.random() < 0.3)
    late = count if is_late else count - 1
    is_spacious = relay and late <= 2
    gap, edge = (MOTION_DURATION, MOTION_DURATION) if is_spacious else (GAP, EDGE)
    times = event_times(rng, late, gap, edge)
    starts = times if is_late else [0.0, *times]
    ends = [*starts[1:], END] if relay else [END] * count
    return [_role(rng, start, end) for start, end in zip(starts, ends, strict=True)]


def departures(rng: np.random.Generator, count: int) -> list[Role]:
    """All shapes are visible at the start, and one or two of them disappear."""
    times = event_times(rng, min(count, int(rng.integers(1, 3))), edge=MOTION_DURATION)
    return [_role(rng, 0, time) for time in times] + [_role(rng, 0, END) for _ in range(count - len(times))]


def color_changes(rng: np.random.Generator, count: int) -> list[Role]:
    """All shapes are visible from start to end, and one of them, rarely two, changes color."""
    times = event_times(rng, min(count, 2 if rng.random() < 0.25 else 1))
    roles = steady(rng, count)
    return [replace(role, change=time) for role, time in zip(roles, times, strict=False)] + roles[len(times) :]


def changes_and_arrivals(rng: np.random.Generator, count: int) -> list[Role]:
    """One shape changes color, and another appears before or after that. The others are visible all the time."""
    times = event_times(rng, 2)
    change, arrival = times if rng.random() < 0.5 else times[::-1]
    roles = steady(rng, count - 1)
    return [replace(roles[0], change=change), *roles[1:], _role(rng, arrival, END)]


def reappearances(rng: np.random.Generator, count: int) -> list[Role]:
    """Each shape appears once, twice or three times, each time at another position, and stays still there."""
    edges = [0.0, *event_times(rng, 4), END]
    return [_from_slots(_pattern(rng, int(rng.integers(1, 4))), edges) for _ in range(count)]


def sequences(rng: np.random.Generator, count: int) -> list[Role]:
    """One shape at a time, of `count` different ones, and some come back. They stay still."""
    edges = [0.0, *event_times(rng, 3), END]
    orders = _SEQUENCES[count]
    order = orders[rng.integers(len(orders))]
    return [_from_slots([item == shape for item in order], edges) for shape in range(count)]


def groups(rng: np.random.Generator, count: int) -> list[Role]:
    """One or two shapes leave, then one or two appear. In half of the scenes one of these was there before.

    They stay still. How many there are at the start and at the end does not depend on whether one returns.
    """
    returns = bool(rng.random() < _RETURNS[count])
    at_start, at_end = _GROUP_SIZES[count + returns]
    if rng.random() < 0.5:
        at_start, at_end = at_end, at_start
    has_gap = rng.random() < 0.5  # else the second group appears as the first one leaves
    times = event_times(rng, 2 if has_gap else 1, edge=MOTION_DURATION)
    start, end = (0.0, times[0]), (times[-1], END)
    roles = [Role((start, end), group="both")] if returns else []
    roles += [Role((start,), group="start")] * (at_start - returns)
    return roles + [Role((end,), group="end")] * (at_end - returns)


def many_events(rng: np.random.Generator, count: int) -> list[Role]:
    """Many events: shapes appear, change color (three at most) and disappear; at most three are visible at a time."""
    times = [0.0, *event_times(rng, 4), END]
    at_start = 2 if count == 5 or rng.random() < 0.5 else 1
    later = 1 + np.sort(rng.choice(3, count - at_start, replace=False))
    visible = [0] * (len(times) - 1)
    slots: list[list[int]] = []  # first slot, one past the last
    for first in [0] * at_start + later.tolist():
        visible[first] += 1
        visible[first + 1] += 1
        slots.append([first, first + 2])
    roles: list[Role] = []
    for first, last in slots:
        while last < len(visible) and visible[last] < 3 and rng.random() < 0.6:
            visible[last] += 1
            last += 1
        inside = times[first + 1 : last]
        changed = sum(role.change is not None for role in roles)
        change = inside[rng.integers(len(inside))] if changed < 3 and rng.random() < 0.8 else None
        roles.append(replace(_role(rng, times[first], times[last]), change=change))
    return roles


def _role(rng: np.random.Generator, start: float, end: float) -> Role:
    """One visit, with a motion if it is long enough."""
    motion = MOTIONS[rng.integers(len(MOTIONS))]
    return Role(((start, end),), motion if end - start >= MOTION_DURATION - 1e-9 else None)


def _from_slots(pattern: list[bool], edges: list[float]) -> Role:
    """A shape that is visible in the slots of `pattern`; consecutive slots are one visit."""
    visits: list[tuple[float, float]] = []
    for visible, start, end in zip(pattern, edges[:-1], edges[1:], strict=True):
        if visible and visits and visits[-1][1] == start:
            visits[-1] = (visits[-1][0], end)
        elif visible:
            visits.append((start, end))
    return Role(tuple(visits))


def _runs(pattern: list[bool]) -> int:
    return sum(now and not before for before, now in zip([False, *pattern[:-1]], pattern, strict=True))


def _pattern(rng: np.random.Generator, runs: int) -> list[bool]:
    """A random pattern of five slots with that many runs."""
    patterns = _PATTERNS[runs]
    return patterns[rng.integers(len(patterns))]


_PATTERNS: dict[int, list[list[bool]]] = {runs: [] for runs in (0, 1, 2, 3)}
for _number in range(1, 32):
    _bits = [bool(_number >> bit & 1) for bit in range(5)]
    _PATTERNS[_runs(_bits)].append(_bits)

# The shape that is visible in each of four slots (-1: none), never the same twice in a row. New shapes come in order.
_SEQUENCES: dict[int, list[tuple[int, ...]]] = {
    1: [(0, -1, 0, -1), (-1, 0, -1, 0), (0, -1, -1, 0)],
    2: [(0, 1, 0, 1), (0, 1, 0, -1), (0, 1, -1, 0), (0, -1, 1, 0), (-1, 0, 1, 0), (0, 1, -1, 1), (0, -1, 0, 1)],
    3: [(0, 1, 2, 0), (0, 1, 0, 2), (0, 1, 2, 1), (0, 1, 2, -1), (0, -1, 1, 2)],
    4: [(0, 1, 2, 3)],
}
# Shapes at the start and shapes at the end, by their sum. With sums of 3, 3, 4 as likely whether one returns or not,
# there are 2, 2, 3, 3, 3, 4 different shapes, and `_RETURNS` is the probability that one of them returns.
_GROUP_SIZES = {3: (1, 2), 4: (2, 2)}
_RETURNS = {2: 1.0, 3: 1 / 3, 4: 0.0}

Timeline = Callable[[np.random.Generator, int], list[Role]]
# kind -> (numbers of different shapes that it can have, repeated for more weight; the function)
TIMELINES: dict[str, tuple[tuple[int, ...], Timeline]] = {
    "steady": ((1, 2, 3, 4), steady),
    "arrivals": ((1, 2, 3, 4), arrivals),
    "departures": ((1, 2, 3, 4), departures),
    "color_changes": ((1, 2, 3), color_changes),
    "changes_and_arrivals": ((2, 3), changes_and_arrivals),
    "reappearances": ((1, 2, 3), reappearances),
    "sequences": ((1, 2, 3, 4), sequences),
    "groups": ((2, 2, 3, 3, 3, 4), groups),
    "many_events": ((4, 5), many_events),
}

__all__ = ["END", "GAP", "MOTION_DURATION", "TIMELINES", "Role", "event_times"]
