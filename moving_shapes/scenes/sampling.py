"""Drawing scenes: first what happens (`timelines`), then what the shapes look like, then where they are.

What happens and what it looks like is drawn once and kept: only the places are drawn again when shapes would touch. So
crowded scenes are as frequent as empty ones, and the distribution of answers is the one that was asked for.
"""

import numpy as np

from .appearance import draw_looks
from .scene import BEAT, CLIP_FRAMES, DIRECTIONS, MovingShape, Scene, Span, frame_times
from .splits import Split, get_split
from .timelines import TIMELINES, Role

RADII = (0.11, 0.13)
TRAVEL = (0.34, 0.48)
CLEARANCE = 0.26  # of centers on the longer axis: more than a cell of a 4x4 grid
ORDER_CLEARANCE = 0.1  # along x, of shapes that appear together, so that left to right can be told
KINDS = tuple(TIMELINES)

_CANDIDATES = 64
_ATTEMPTS = 2000
_TIMES = frame_times(CLIP_FRAMES)


def sample_scene(
    rng: np.random.Generator, split: str | Split = "train", kind: str | None = None, count: int | None = None
) -> Scene:
    """Draws a scene.

    Args:
        rng: where all randomness comes from.
        split: whose combinations and backgrounds are used.
        kind: what happens, of `KINDS`; None draws one.
        count: how many different shapes; None draws a number that the kind allows.

    Returns:
        A scene in which no two shapes touch, all are wholly in the picture, and events are at the same moment or at
        least 1.5 `BEAT` apart.

    Raises:
        ValueError: for an unknown split or kind, or a count that the kind cannot have.
    """
    split = get_split(split) if isinstance(split, str) else split
    if kind is None:
        kind = KINDS[rng.integers(len(KINDS))]
    if kind not in TIMELINES:
        raise ValueError(f"There is no kind of scene {kind!r}: pass one of {', '.join(map(repr, KINDS))}.")
    counts, draw_timeline = TIMELINES[kind]
    if count is None:
        count = int(counts[rng.integers(len(counts))])
    if count not in counts:
        raise ValueError(f"A scene of kind {kind!r} cannot have {count} shapes: pass one of {counts}.")
    roles = draw_looks(rng, split, draw_timeline(rng, count))
    shapes = place(rng, roles)
    background = split.backgrounds[rng.integers(len(split.backgrounds))]
    return Scene(split.name, kind, shapes, background, int(rng.integers(2**31)))


def place(rng: np.random.Generator, roles: list[Role]) -> tuple[MovingShape, ...]:
    """Gives every role a size and places that keep clear of each other; the result is in reading order."""
    for _ in range(_ATTEMPTS):
        shapes = _try_to_place(rng, roles)
        if shapes is not None:
            return tuple(sorted(shapes, key=lambda shape: (shape.appears, shape.spans[0].origin[0])))
    raise RuntimeError(f"No room for {roles} after {_ATTEMPTS} attempts.")


def _try_to_place(rng: np.random.Generator, roles: list[Role]) -> list[MovingShape] | None:
    """One attempt; the longest ways are placed first, since they need the most room."""
    radii = rng.uniform(*RADII, len(roles))
    noise = rng.random(len(roles))
    order = sorted(range(len(roles)), key=lambda i: (roles[i].motion in (None, "still"), noise[i]))
    placed: list[tuple[Span, float, np.ndarray, np.ndarray]] = []
    shapes: dict[int, MovingShape] = {}
    for i in order:
        role, radius = roles[i], float(radii[i])
        spans: list[Span] = []
        for number, (start, end) in enumerate(role.stays):
            span = _find_span(rng, start * BEAT, end * BEAT, role.motion or "still", radius, placed, spans, number == 0)
            if span is None:
                return None
            spans.append(span)
        for span in spans:
            placed.append((span, radius, span.covers(_TIMES), span.centers(_TIMES)))
        turn = None if role.turn is None else role.turn * BEAT
        shapes[i] = MovingShape(role.color, role.shape, radius, tuple(spans), role.motion, role.new_color, turn)
    return [shapes[i] for i in range(len(roles))]


def _find_span(
    rng: np.random.Generator,
    start: float,
    end: float,
    motion: str,
    radius: float,
    placed: list[tuple[Span, float, np.ndarray, np.ndarray]],
    own: list[Span],
    is_first: bool,
) -> Span | None:
    """The first of some random ways that keeps clear of what is placed, and of where the shape itself was before."""
    end = min(end, 1.0)
    origins, targets = _candidates(rng, motion, radius)
    good = np.ones(_CANDIDATES, bool)
    for before in own:  # a shape comes back elsewhere
        good &= np.abs(origins - np.array(before.target)).max(-1) >= CLEARANCE
    shown = Span(start, end, (0, 0), (0, 0)).covers(_TIMES)
    passed = (_TIMES - start) / (end - start)
    for span, other_radius, other_shown, other_centers in placed:
        both = shown & other_shown
        if both.any():
            ways = origins[:, None] + (targets - origins)[:, None] * passed[both][None, :, None]
            gaps = np.abs(ways - other_centers[both]).max(-1).min(-1)
            good &= gaps >= max(CLEARANCE, radius + other_radius + 0.01)
        if is_first and span.start == start:
            good &= np.abs(origins[:, 0] - span.origin[0]) >= ORDER_CLEARANCE
    if not good.any():
        return None
    best = int(good.argmax())
    (x0, y0), (x1, y1) = origins[best].tolist(), targets[best].tolist()
    return Span(start, end, (x0, y0), (x1, y1))


def _candidates(rng: np.random.Generator, motion: str, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Random ways wholly in the picture: origins and targets, float64 (candidates, 2) each."""
    low, high = radius + 0.01, 1 - radius - 0.01
    origins = rng.uniform(low, high, (_CANDIDATES, 2))
    direction = np.array(DIRECTIONS[motion], float)
    if motion == "still":
        return origins, origins
    travel = rng.uniform(*TRAVEL, _CANDIDATES)
    axis = int(np.abs(direction).argmax())
    near = low + (high - low - travel) * rng.random(_CANDIDATES)
    origins[:, axis] = near if direction[axis] > 0 else near + travel
    return origins, origins + travel[:, None] * direction


__all__ = ["CLEARANCE", "KINDS", "RADII", "place", "sample_scene"]
