"""Questions about scenes: one function a type, from a scene and randomness to a question with its answer, or None.

Every question has two wordings, a few words and a sentence, and so has its answer. It also says which intervals of the
clip must be sampled for the answer to be seen (`evidence`): eight evenly sampled frames, or any larger number, do.

`coin`, 0..1, decides between the answers of a question that has two, so that a caller can keep both as frequent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .facts import (
    Interval,
    caption_of,
    facts_of,
    gaps_of,
    has_comings,
    is_shown,
    motion_clause,
    order_evidence,
    seen,
    stay_edges,
)
from .scenes.scene import BEAT, COLORS, MOTIONS, SHAPES, MovingShape, Scene
from .scenes.splits import Look, get_split
from .vocabulary import LETTERS, NUMBERS, ORDINALS

STYLES = ("compact", "sentence")
OPTION_POOLS = (COLORS, SHAPES, MOTIONS, NUMBERS[: len(LETTERS)])  # of the options of a multiple choice


@dataclass(frozen=True)
class Question:
    """A question about a scene.

    Args:
        type: of `QUESTION_TYPES`.
        questions: its compact and its full wording.
        answers: its compact and its full answer; the same for captions.
        facts: the sentences that a full answer holds.
        evidence: intervals of the clip, each of which must be sampled at least once; an end of 1 is included.
        shapes: places in `scene.shapes` of what it is about.
    """

    type: str
    questions: tuple[str, str]
    answers: tuple[str, str]
    facts: tuple[str, ...]
    evidence: tuple[Interval, ...]
    shapes: tuple[int, ...] = ()

    def question(self, style: str = "sentence") -> str:
        """The wording of that style."""
        return self.questions[check_style(style)]

    def answer(self, style: str = "compact") -> str:
        """The answer of that style."""
        return self.answers[check_style(style)]

    @property
    def taught(self) -> str:
        """What training answers: the compact answer; of a multiple choice the option too, not its letter alone.

        A letter is found through what it stands for. Masked together with it, that is learned first, and says which.
        """
        return self.answers[1].removesuffix(".") if self.type in CHOICE_TYPES else self.answers[0]

    def is_determined(self, times: np.ndarray) -> bool:
        """Whether frames at `times` (T,) show all that the answer depends on."""
        return is_shown(self.evidence, times)


def check_style(style: str) -> int:
    """The place of a style in `STYLES`; ValueError for an unknown one."""
    if style not in STYLES:
        raise ValueError(f"There is no style {style!r}: pass one of {', '.join(map(repr, STYLES))}.")
    return STYLES.index(style)


def check_type(type: str) -> str:
    """The type; ValueError if there is none of that name."""
    if type not in QUESTION_TYPES:
        raise ValueError(f"There is no question type {type!r}: pass one of {', '.join(map(repr, QUESTION_TYPES))}.")
    return type


def ask(scene: Scene, type: str, rng: np.random.Generator, coin: float | None = None) -> Question | None:
    """Asks a question of a type about a scene.

    Args:
        type: of `QUESTION_TYPES`.
        coin: 0..1, decides between two possible answers; None draws it.

    Returns:
        The question, or None if the scene has nothing of the kind, or not with the answer that the coin wants.

    Raises:
        ValueError: for an unknown type.
    """
    return _ASKERS[check_type(type)](scene, rng, float(rng.random()) if coin is None else coin)


# What can be named


def has_one_shape_each(scene: Scene) -> bool:
    """Whether a color or a shape is enough to name any of them: not so in scenes of two groups."""
    return scene.kind != "groups"


def everything(scene: Scene) -> tuple[Interval, ...]:
    """The evidence of all shapes."""
    return tuple(interval for shape in scene.shapes for interval in seen(shape))


def _question(
    scene: Scene,
    type: str,
    question: tuple[str, str],
    answer: tuple[str, str],
    evidence: Sequence[Interval],
    *shapes: MovingShape,
) -> Question:
    places = tuple(scene.shapes.index(shape) for shape in shapes)
    return Question(type, question, answer, (answer[1],), tuple(evidence), places)


def _draw(rng: np.random.Generator, shapes: Sequence[MovingShape]) -> MovingShape | None:
    return shapes[int(rng.integers(len(shapes)))] if shapes else None


def _yes_no(is_so: bool, subject: str, yes: str, no: str) -> tuple[str, str]:
    """An answer and its sentence: "yes, the circle disappears."."""
    return ("yes", f"yes, {subject} {yes}.") if is_so else ("no", f"no, {subject} {no}.")


# What can be read off single frames


def _color(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    shape = _draw(rng, [s for s in scene.shapes if s.new_color is None])
    if shape is None or not has_one_shape_each(scene):
        return None
    words = f"color {shape.shape}", f"What color is the {shape.shape}?"
    return _question(scene, "color", words, (shape.color, f"the {shape.shape} is {shape.color}."), seen(shape), shape)


def _shape(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    shape = _draw(rng, scene.shapes)
    if shape is None or not has_one_shape_each(scene):
        return None
    words = f"shape {shape.color}", f"What is the {shape.color} shape?"
    answer = shape.shape, f"the {shape.color} shape is a {shape.shape}."
    return _question(scene, "shape", words, answer, seen(shape)[:1], shape)


def _existence(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    shape = _draw(rng, scene.shapes)
    assert shape is not None
    if coin < 0.5:
        color, kind = shape.looks[rng.integers(len(shape.looks))]
        evidence = seen(shape)
    else:
        look = _absent_look(scene, shape, rng)
        if look is None:
            return None
        (color, kind), evidence = look, everything(scene)
    name = f"{color} {kind}"
    answer = ("yes", f"yes, there is a {name}.") if coin < 0.5 else ("no", f"no, there is no {name}.")
    return _question(scene, "existence", (f"there {name}", f"Is there a {name}?"), answer, evidence, shape)


def _absent_look(scene: Scene, model: MovingShape, rng: np.random.Generator) -> Look | None:
    """A combination that is not in the scene but has the color or the shape of something in it.

    It is held out if `model` is, so that what is held out is as often absent as present.
    """
    split = get_split(scene.split)
    shown = [look for shape in scene.shapes for look in shape.looks]
    pool = split.held_out if model.looks[0] in split.held_out else split.shared
    absent = [look for look in pool if look not in shown]
    near = [look for look in absent if any((look[0] == c) != (look[1] == s) for c, s in shown)]
    options = near or absent
    return options[rng.integers(len(options))] if options else None


def _counting(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    if has_comings(scene):
        return None
    return _count(scene, "counting", ("many shapes", "How many shapes are there?"))


def _count(scene: Scene, type: str, words: tuple[str, str]) -> Question:
    number = NUMBERS[len(scene.shapes) - 1]
    different = "different " if type == "distinct" else ""
    full = "there is one shape." if number == "one" else f"there are {number} {different}shapes."
    return _question(scene, type, words, (number, full), everything(scene), *scene.shapes)


# What depends on the order of frames


def _motion(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    shape = _draw(rng, [s for s in scene.shapes if s.motion is not None])
    if shape is None or not has_one_shape_each(scene):
        return None
    assert shape.motion is not None
    answer = shape.motion, f"the {shape.shape} {motion_clause(shape.motion)}."
    words = f"move {shape.shape}", f"How does the {shape.shape} move?"
    return _question(scene, "motion", words, answer, stay_edges(shape), shape)


def _first(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    return _extreme(scene, "first", scene.shapes[0])


def _last(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    return _extreme(scene, "last", scene.shapes[-1])


def _extreme(scene: Scene, type: str, shape: MovingShape) -> Question | None:
    alone = sum(other.appears == shape.appears for other in scene.shapes) == 1
    if len(scene.shapes) < 2 or not alone or has_comings(scene):
        return None
    words = f"appears {type}", f"Which shape appears {type}?"
    answer = shape.shape, f"the {shape.shape} appears {type}."
    return _question(scene, type, words, answer, seen(shape) + order_evidence(scene), shape)


def _ordinal(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    if len(scene.shapes) < 2 or has_comings(scene):
        return None
    place = int(rng.integers(len(scene.shapes)))
    shape, ordinal = scene.shapes[place], ORDINALS[place]
    evidence = seen(shape) + order_evidence(scene)
    if coin < 0.5 and shape.new_color is None:
        words = f"color {ordinal}", f"What color is the {ordinal} shape?"
        answer = shape.color, f"the {ordinal} shape is {shape.color}."
    else:
        words = f"shape {ordinal}", f"What is the {ordinal} shape?"
        answer = shape.shape, f"the {ordinal} shape is a {shape.shape}."
    return _question(scene, "ordinal", words, answer, evidence, shape)


def _start_color(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    shape = _prefer_turning(rng, [s for s in scene.shapes if s.appears == 0], coin)
    if shape is None or has_comings(scene):
        return None
    words = f"color {shape.shape} start", f"What color is the {shape.shape} at the start?"
    answer = shape.color, f"at the start the {shape.shape} is {shape.color}."
    return _question(scene, "start_color", words, answer, [*seen(shape), (0, BEAT)], shape)


def _end_color(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    shape = _prefer_turning(rng, [s for s in scene.shapes if s.disappears >= 1], coin)
    if shape is None or has_comings(scene):
        return None
    color = shape.new_color or shape.color
    words = f"color {shape.shape} end", f"What color is the {shape.shape} at the end?"
    answer = color, f"at the end the {shape.shape} is {color}."
    return _question(scene, "end_color", words, answer, [*seen(shape), (1 - BEAT, 1)], shape)


def _prefer_turning(rng: np.random.Generator, shapes: list[MovingShape], coin: float) -> MovingShape | None:
    """One that changes color in three of four questions."""
    turning = [shape for shape in shapes if shape.new_color is not None]
    steady = [shape for shape in shapes if shape.new_color is None]
    return _draw(rng, (turning or steady) if coin < 0.75 else (steady or turning))


def _change(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    turning = [shape for shape in scene.shapes if shape.new_color is not None]
    if has_comings(scene):
        return None
    evidence = [*everything(scene), *(edge for shape in scene.shapes for edge in stay_edges(shape))]
    if coin < (0.5 if turning else 0.75):
        words = "any changes color", "Does any shape change color?"
        full = f"yes, the {turning[0].shape} changes color." if turning else "no, no shape changes color."
        return _question(scene, "change", words, ("yes" if turning else "no", full), evidence, *turning[:1])
    if len(turning) > 1:
        return None
    words = "changes color", "Which shape changes color?"
    answer = ("none", "no shape changes color.")
    if turning:
        answer = turning[0].shape, f"the {turning[0].shape} changes color."
    return _question(scene, "change", words, answer, evidence, *turning)


def _disappearance(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    wanted = coin < 0.5
    shape = _draw(rng, [s for s in scene.shapes if (s.disappears < 1) == wanted])
    if shape is None or has_comings(scene):
        return None
    words = f"disappears {shape.shape}", f"Does the {shape.shape} disappear?"
    answer = _yes_no(wanted, f"the {shape.shape}", "disappears", "does not disappear")
    return _question(scene, "disappearance", words, answer, [*seen(shape), (shape.disappears, 1)], shape)


def _presence(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    moment = "start" if rng.random() < 0.5 else "end"
    wanted = coin < 0.5
    at = np.array([0.0 if moment == "start" else 1.0])
    shape = _draw(rng, [s for s in scene.shapes if bool(s.visible(at)[0]) == wanted])
    if shape is None:
        return None
    words = f"there {shape.name} {moment}", f"Is the {shape.name} there at the {moment}?"
    answer = _yes_no(wanted, f"the {shape.name}", f"is there at the {moment}", f"is not there at the {moment}")
    edge = (0, BEAT) if moment == "start" else (1 - BEAT, 1)
    return _question(scene, "presence", words, answer, [*seen(shape), edge], shape)


# What has to be computed across frames


def _distinct(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    if scene.kind != "reruns":
        return None
    return _count(scene, "distinct", ("many different shapes", "How many different shapes are there?"))


def _again(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    if scene.kind != "groups":
        return None
    back = [shape for shape in scene.shapes if len(shape.spans) > 1]
    words = "start back end", "Is a shape from the start back at the end?"
    full = f"yes, the {back[0].name} is back." if back else "no, none is back."
    return _question(scene, "again", words, ("yes" if back else "no", full), everything(scene), *back)


def _when(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    if has_comings(scene):
        return None
    pairs = [
        (turning, coming)
        for turning in scene.shapes
        for coming in scene.shapes
        if turning.turn_time is not None
        and coming is not turning
        and turning.appears < coming.appears < turning.disappears
        and coming.appears != turning.turn_time
    ]
    if not pairs:
        return None
    turning, coming = pairs[rng.integers(len(pairs))]
    assert turning.turn_time is not None and turning.new_color is not None
    color = turning.color if coming.appears < turning.turn_time else turning.new_color
    words = (
        f"color {turning.shape} when {coming.shape}",
        (f"What color is the {turning.shape} when the {coming.shape} appears?"),
    )
    answer = color, f"the {turning.shape} is {color} when the {coming.shape} appears."
    first, second = sorted((coming.appears, turning.turn_time))
    return _question(scene, "when", words, answer, [*seen(turning), *seen(coming), (first, second)], turning, coming)


def _appearances(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    shape = _draw(rng, scene.shapes)
    assert shape is not None
    number = len(shape.spans)
    words = f"times {shape.name}", f"How many times does the {shape.name} appear?"
    outside = [gap for gap in ((0, shape.appears), *gaps_of(shape), (shape.disappears, 1)) if gap[0] < gap[1]]
    answer = NUMBERS[number - 1], f"the {shape.name} appears {NUMBERS[number - 1]} time{'s' * (number > 1)}."
    return _question(scene, "appearances", words, answer, [*seen(shape), *outside], shape)


def _mover(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    known = [shape for shape in scene.shapes if shape.motion is not None]
    if len(known) < max(2, len(scene.shapes)) or not has_one_shape_each(scene):
        return None
    shape = _draw(rng, [s for s in known if sum(other.motion == s.motion for other in known) == 1])
    if shape is None:
        return None
    assert shape.motion is not None
    clause = motion_clause(shape.motion)
    evidence = [interval for other in known for interval in stay_edges(other)]
    answer = shape.shape, f"the {shape.shape} {clause}."
    return _question(scene, "mover", (clause, f"Which shape {clause}?"), answer, evidence, shape)


# Longer ones


def _choice(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    return _choose(scene, "choice", _CHOICE_BASES, OPTION_POOLS, rng, coin)


def _choose(
    scene: Scene, type: str, bases: Sequence[str], pools: Sequence[Sequence[str]], rng: np.random.Generator, coin: float
) -> Question | None:
    """A question of one of the `bases` with four options of the pool that its answer is in."""
    base = _ASKERS[bases[int(rng.integers(len(bases)))]](scene, rng, float(rng.random()))
    if base is None:
        return None
    right = base.answers[0]
    pool = next((pool for pool in pools if right in pool), None)
    if pool is None:
        return None
    others = [option for option in pool if option != right]
    near = {color for shape in scene.shapes for color, _ in shape.looks} | {shape.shape for shape in scene.shapes}
    ranks = rng.random(len(others)) - [0.5 * (option in near) for option in others]  # what is shown is more tempting
    options = [others[i] for i in np.argsort(ranks)[:3]]
    place = int(coin * len(LETTERS))
    options.insert(place, right)
    listed = " ".join(f"{letter.upper()} {option}" for letter, option in zip(LETTERS, options, strict=True))
    compact = " ".join(f"{letter} {option}" for letter, option in zip(LETTERS, options, strict=True))
    return replace(
        base,
        type=type,
        questions=(f"{base.questions[0]} {compact}", f"{base.questions[1]} {listed}"),
        answers=(LETTERS[place], f"{LETTERS[place]} {right}."),
        facts=(f"{LETTERS[place]} {right}.",),
    )


def _caption(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    facts = caption_of(scene)
    text = " ".join(fact.sentence for fact in facts)
    evidence = tuple(interval for fact in facts for interval in fact.evidence) + order_evidence(scene)
    places = tuple(range(len(scene.shapes)))
    words = "describe video", "Describe the video."
    return Question("caption", words, (text, text), tuple(fact.sentence for fact in facts), evidence, places)


def _detail(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    place = int(rng.integers(len(scene.shapes)))
    shape = scene.shapes[place]
    facts = facts_of(shape, scene)
    text = " ".join(fact.sentence for fact in facts)
    evidence = tuple(interval for fact in facts for interval in fact.evidence) + seen(shape)
    if coin < 0.5 and len(scene.shapes) > 1 and not has_comings(scene):
        words = f"describe {ORDINALS[place]}", f"Describe the {ORDINALS[place]} shape."
        evidence += order_evidence(scene)
    else:
        words = f"describe {shape.name}", f"Describe the {shape.name}."
    return Question("detail", words, (text, text), tuple(fact.sentence for fact in facts), evidence, (place,))


# Helpers: not part of the benchmark, but they make motion and multiple choice easier to learn


def _position(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    if has_comings(scene):
        return None
    moment, axis = ("start", "end")[rng.integers(2)], int(rng.integers(2))
    at_start, wanted = moment == "start", coin < 0.5
    there = [s for s in scene.shapes if (s.appears == 0 if at_start else s.disappears >= 1)]
    found = []
    for shape in there:
        value = (shape.spans[0].origin if at_start else shape.spans[0].target)[axis]
        if abs(value - 0.5) >= 0.08 and (value < 0.5) == wanted:
            found.append(shape)
    chosen = _draw(rng, found)
    if chosen is None:
        return None
    side = ("left", "top")[axis]
    words = f"{side} {chosen.shape} {moment}", f"Is the {chosen.shape} in the {side} half at the {moment}?"
    answer = _yes_no(wanted, f"the {chosen.shape}", f"is in the {side} half", f"is not in the {side} half")
    instant = (0.0, 0.01) if at_start else (1.0, 1.0)
    return _question(scene, "position", words, answer, [instant], chosen)


def _direction(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    shape = _draw(rng, [s for s in scene.shapes if s.motion is not None])
    if shape is None or not has_one_shape_each(scene):
        return None
    asked = shape.motion
    if coin >= 0.5:
        others = [motion for motion in MOTIONS if motion != shape.motion]
        asked = others[rng.integers(len(others))]
    assert asked is not None
    clause = motion_clause(asked)
    infinitive = "stay still" if asked == "still" else f"move {asked}"
    words = f"{clause} {shape.shape}", f"Does the {shape.shape} {infinitive}?"
    answer = _yes_no(coin < 0.5, f"the {shape.shape}", clause, f"does not {infinitive}")
    return _question(scene, "direction", words, answer, stay_edges(shape), shape)


def _pick(scene: Scene, rng: np.random.Generator, coin: float) -> Question | None:
    """Multiple choice among shapes: an option must not be taken for what is asked about."""
    return _choose(scene, "pick", ("shape", "first", "last", "ordinal"), (SHAPES,), rng, coin)


Asker = Callable[[Scene, np.random.Generator, float], Question | None]
_ASKERS: dict[str, Asker] = {
    "color": _color,
    "shape": _shape,
    "existence": _existence,
    "counting": _counting,
    "motion": _motion,
    "first": _first,
    "last": _last,
    "ordinal": _ordinal,
    "start_color": _start_color,
    "end_color": _end_color,
    "change": _change,
    "disappearance": _disappearance,
    "presence": _presence,
    "distinct": _distinct,
    "again": _again,
    "when": _when,
    "appearances": _appearances,
    "mover": _mover,
    "choice": _choice,
    "caption": _caption,
    "detail": _detail,
    "position": _position,
    "direction": _direction,
    "pick": _pick,
}
_CHOICE_BASES = (
    "color", "shape", "motion", "counting", "first", "last", "ordinal", "start_color", "end_color",
)  # fmt: skip

HELPER_TYPES = ("position", "direction", "pick")
CHOICE_TYPES = ("choice", "pick")
LONG_TYPES = ("caption", "detail")  # answered in sentences, a fact each
QUESTION_TYPES = tuple(_ASKERS)
BENCHMARK_TYPES = tuple(type for type in _ASKERS if type not in HELPER_TYPES)
CROSS_FRAME_TYPES = ("distinct", "again", "when", "appearances", "mover")
TEMPORAL_TYPES = (
    "motion", "first", "last", "ordinal", "start_color", "end_color", "disappearance", "presence", "when",
    "appearances", "mover",
)  # fmt: skip
YES_NO_TYPES = ("existence", "disappearance", "presence", "position", "direction")

__all__ = [
    "BENCHMARK_TYPES",
    "CHOICE_TYPES",
    "CROSS_FRAME_TYPES",
    "HELPER_TYPES",
    "LONG_TYPES",
    "OPTION_POOLS",
    "QUESTION_TYPES",
    "STYLES",
    "TEMPORAL_TYPES",
    "YES_NO_TYPES",
    "Question",
    "ask",
    "check_style",
]
