"""Drawing scenes: first the events (`timelines`), then the appearance of the shapes, then their positions.

Events and appearance are drawn once and kept: only positions are drawn again when shapes would touch. So crowded scenes
are as frequent as empty ones, and the distribution of answers is the intended one.
"""

import numpy as np

from .appearance import draw_appearance
from .scene import BEAT, CLIP_FRAMES, DIRECTIONS, MovingShape, Scene, Span, frame_times
from .splits import Split, get_split
from .timelines import TIMELINES, Role

RADII = (0.11, 0.13)
TRAVEL = (0.34, 0.48)
CLEARANCE = 0.26  # of centers on the longer axis: more than a cell of a 4x4 grid
ORDER_CLEARANCE = 0.1  # along x, of shapes that appear together, so that their order from left to right is clear
KINDS = tuple(TIMELINES)

_CANDIDATES = 64
_ATTEMPTS = 2000
_TIMES = frame_times(CLIP_FRAMES)


def sample_scene(
    rng: np.random.Generator, split: str | Split = "train", kind: str | None = None, count: int | None = None
) -> Scene:
    """Draws a scene.

    Args:
        rng: the source of all randomness.
        split: whose combinations and backgrounds are used.
        kind: which events, of `KINDS`; None draws one.
        count: how many different shapes; None draws a number that the kind allows.

    Returns:
        A scene in which no two shapes touch, all are wholly in the frame, and events are at the same time or at least
        1.5 `BEAT` apart.

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
    roles = draw_appearance(rng, split, draw_timeline(rng, count))
    shapes = arrange(rng, roles)
    background = split.backgrounds[rng.integers(len(split.backgrounds))]
    return Scene(split.name, kind, shapes, background, int(rng.integers(2**31)))


def arrange(rng: np.random.Generator, roles: list[Role]) -> tuple[MovingShape, ...]:
    """Gives each role a size and positions that keep clear of the others; the result is in reading order."""
    for _ in range(_ATTEMPTS):
        shapes = _try_to_arrange(rng, roles)
        if shapes is not None:
            return tuple(sorted(shapes, key=lambda shape: (shape.appears, shape.spans[0].origin[0])))
    raise RuntimeError(f"No room for {roles} after {_ATTEMPTS} attempts.")


def _try_to_arrange(rng: np.random.Generator, roles: list[Role]) -> list[MovingShape] | None:
    """One attempt. Moving shapes come first, since they need the most room; None if one finds none."""
    radii = rng.uniform(*RADII, len(roles))
    noise = rng.random(len(roles))
    order = sorted(range(len(roles)), key=lambda i: (roles[i].motion in (None, "still"), noise[i]))
    arranged: list[tuple[Span, float, np.ndarray, np.ndarray]] = []
    shapes: dict[int, MovingShape] = {}
    for i in order:
        role, radius = roles[i], float(radii[i])
        spans: list[Span] = []
        for number, (start, end) in enumerate(role.visits):
            motion = role.motion or "still"
            span = _draw_span(rng, (start * BEAT, end * BEAT), motion, radius, arranged, spans, number == 0)
            if span is None:
                return None
            spans.append(span)
        for span in spans:
            arranged.append((span, radius, span.covers(_TIMES), span.centers(_TIMES)))
        change = None if role.change is None else role.change * BEAT
        shapes[i] = MovingShape(role.color, role.shape, radius, tuple(spans), role.motion, role.new_color, change)
    return [shapes[i] for i in range(len(roles))]


def _draw_span(
    rng: np.random.Generator,
    visit: tuple[float, float],
    motion: str,
    radius: float,
    arranged: list[tuple[Span, float, np.ndarray, np.ndarray]],
    own: list[Span],
    is_first: bool,
) -> Span | None:
    """The first of some random paths that keeps clear of the shapes arranged so far and of the shape's own spans.

    Args:
        visit: start and end, fractions of the clip.
        arranged: (span, radius, whether it is visible, centers) of each span so far, at the times of all frames.
        own: earlier spans of the same shape.
        is_first: whether it is the shape's first span.

    Returns:
        None if no path does.
    """
    start, end = visit[0], min(visit[1], 1.0)
    origins, targets = _candidates(rng, motion, radius)
    good = np.ones(_CANDIDATES, bool)
    for before in own:  # a shape comes back elsewhere
        good &= np.abs(origins - np.array(before.target)).max(-1) >= CLEARANCE
    visible = Span(start, end, (0, 0), (0, 0)).covers(_TIMES)
    passed = (_TIMES - start) / (end - start)
    for span, other_radius, other_visible, other_centers in arranged:
        both = visible & other_visible
        if both.any():
            paths = origins[:, None] + (targets - origins)[:, None] * passed[both][None, :, None]
            gaps = np.abs(paths - other_centers[both]).max(-1).min(-1)
            good &= gaps >= max(CLEARANCE, radius + other_radius + 0.01)
        if is_first and span.start == start:
            good &= np.abs(origins[:, 0] - span.origin[0]) >= ORDER_CLEARANCE
    if not good.any():
        return None
    best = int(good.argmax())
    (x0, y0), (x1, y1) = origins[best].tolist(), targets[best].tolist()
    return Span(start, end, (x0, y0), (x1, y1))


def _candidates(rng: np.random.Generator, motion: str, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Random paths wholly in the frame: origins and targets, float64 (candidates, 2) each."""
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


__all__ = ["CLEARANCE", "KINDS", "RADII", "arrange", "sample_scene"]
