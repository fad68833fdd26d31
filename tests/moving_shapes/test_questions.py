"""Questions: an observer of single frames finds the same answers, at any number of frames."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moving_shapes.dataset import draw_question
from moving_shapes.facts import split_facts
from moving_shapes.questions import (
    BENCHMARK_TYPES,
    CHOICE_TYPES,
    LONG_TYPES,
    QUESTION_TYPES,
    Question,
    ask,
)
from moving_shapes.scenes.scene import SHAPES, Scene, frame_times
from moving_shapes.scenes.splits import SPLITS, get_split
from moving_shapes.vocabulary import NUMBERS, ORDINALS, VOCABULARY, normalize, words

from .helpers import Observer, scene_of

TIMES = frame_times(8)


def draw(seed: int, type: str, split: str = "train") -> tuple[Scene, Question]:
    return draw_question(np.random.Generator(np.random.Philox(seed)), split, type, TIMES)


def observe(question: str, observer: Observer) -> str:  # noqa: C901
    """The compact answer to a full question, from what an observer knows."""
    asked = words(question)[:-1]
    text = " ".join(asked)
    kinds, visible = observer.kinds(), {combination for frame in observer.frames for combination in frame}

    def yes(is_so: bool) -> str:
        return "yes" if is_so else "no"

    if match := re.fullmatch(r"what color is the (\w+) when the (\w+) appears", text):
        changing, arriving = observer.track(match[1]), observer.track(match[2])
        return changing[next(i for i, item in enumerate(arriving) if item is not None)][0]
    if match := re.fullmatch(r"what color is the (\w+) at the (start|end)", text):
        return observer.colors(match[1])[0 if match[2] == "start" else -1]
    if match := re.fullmatch(r"what color is the (\w+) shape", text):
        return observer.colors(kinds[ORDINALS.index(match[1])])[0]
    if match := re.fullmatch(r"what color is the (\w+)", text):
        (color,) = set(observer.colors(match[1]))
        return color
    if match := re.fullmatch(r"what is the (\w+) shape", text):
        if match[1] in ORDINALS:
            return kinds[ORDINALS.index(match[1])]
        (shape,) = {shape for color, shape in visible if color == match[1]}
        return shape
    if match := re.fullmatch(r"is there a (\w+) (\w+)", text):
        return yes((match[1], match[2]) in visible)
    if match := re.fullmatch(r"is the (\w+) (\w+) there at the (start|end)", text):
        return yes((match[1], match[2]) in observer.frames[0 if match[3] == "start" else -1])
    if match := re.fullmatch(r"is the (\w+) in the (left|top) half at the (start|end)", text):
        return yes(observer.track(match[1])[0 if match[3] == "start" else -1][1 if match[2] == "left" else 2] < 0.5)
    if re.fullmatch(r"how many (different )?shapes are there", text):
        return NUMBERS[len(kinds) - 1]
    if match := re.fullmatch(r"how does the (\w+) move", text):
        return observer.motion(match[1])
    if match := re.fullmatch(r"does the (\w+) (?:move|stay) (\w+)", text):
        return yes(observer.motion(match[1]) == match[2])
    if match := re.fullmatch(r"does the (\w+) disappear", text):
        return yes(observer.track(match[1])[-1] is None)
    if match := re.fullmatch(r"which shape appears (first|last)", text):
        return kinds[0 if match[1] == "first" else -1]
    if match := re.fullmatch(r"which shape (?:moves|stays) (\w+)", text):
        (shape,) = [shape for shape in kinds if observer.motion(shape) == match[1]]
        return shape
    if text == "does any shape change color":
        return yes(bool(observer.changing()))
    if text == "which shape changes color":
        return (observer.changing() or ["none"])[0]
    if text == "is a shape from the start back at the end":
        return yes(bool(set(observer.frames[0]) & set(observer.frames[-1])))
    if match := re.fullmatch(r"how many times does the (\w+) (\w+) appear", text):
        return NUMBERS[observer.visits((match[1], match[2])) - 1]
    raise AssertionError(text)


@pytest.mark.parametrize("type", [type for type in QUESTION_TYPES if type not in (*CHOICE_TYPES, *LONG_TYPES)])
@pytest.mark.parametrize("split", ["train", "test"])
def test_answers_follow_from_8_11_16_and_32_frames(type: str, split: str) -> None:
    for seed in range(15):
        scene, question = draw(seed, type, split)
        assert question.type == type
        for frames in (8, 11, 16, 32):
            assert observe(question.question(), Observer(scene, frame_times(frames))) == question.answer(), (
                frames,
                scene,
            )


@pytest.mark.parametrize("type", CHOICE_TYPES)
def test_the_right_letter_is_beside_the_right_answer(type: str) -> None:
    for seed in range(60):
        scene, question = draw(seed, type)
        text, *options = re.split(r"\([A-D]\)", question.question())
        answer = observe(text, Observer(scene, TIMES))
        assert len(options) == len(set(options)) == 4
        assert type == "choice" or answer in SHAPES
        assert options["(a)(b)(c)(d)".index(question.answer()) // 3].strip() == answer


@pytest.mark.parametrize("type", ["caption", "detail"])
def test_each_fact_of_a_caption_follows_from_the_frames(type: str) -> None:
    for seed in range(40):
        scene, question = draw(seed, type, "validation")
        assert [normalize(fact) for fact in question.facts] == split_facts(question.answer())
        for frames in (8, 16, 32):
            observer = Observer(scene, frame_times(frames))
            for fact in split_facts(question.answer()):
                _, color, shape, verb, *rest = fact.split()
                if verb in ("moves", "stays"):
                    assert observer.motion(shape) == rest[0]
                elif verb == "turns":
                    assert observer.colors(shape)[0] == color and observer.colors(shape)[-1] == rest[0]
                elif verb == "disappears":
                    assert observer.track(shape)[-1] is None
                elif len(rest) == 2:
                    assert observer.visits((color, shape)) == 1 + NUMBERS.index(rest[0])
                else:
                    assert observer.kinds()[ORDINALS.index(rest[0])] == shape


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(QUESTION_TYPES), st.sampled_from(sorted(SPLITS)))
def test_texts_keep_to_the_vocabulary_and_the_split(seed: int, type: str, split: str) -> None:
    _, question = draw(seed, type, split)
    for text in question.questions + question.answers:
        assert set(words(text)) <= set(VOCABULARY)
        assert len(words(text)) <= 98
    if type not in ("caption", "detail"):
        assert len(words(question.answer("compact"))) <= 3
    assert question.is_determined(TIMES)
    foreign = {combination for other in SPLITS.values() for combination in other.combinations}
    foreign -= set(get_split(split).combinations)
    named = " ".join(question.questions + question.answers)
    assert not any(f"{color} {shape}" in named for color, shape in foreign)


def test_the_vocabulary_is_small_and_used() -> None:
    used: set[str] = set()
    for type in QUESTION_TYPES:
        for seed in range(40):
            _, question = draw(seed, type)
            used.update(*(words(text) for text in question.questions + question.answers))
    used.update(*(words(question.answers[1]) for question in _counts_of_many_events()))
    assert len(VOCABULARY) <= 128 and used == set(VOCABULARY)


def _counts_of_many_events() -> list[Question]:
    asked = [ask(scene_of(seed, kind="many_events"), "counting", np.random.default_rng(0)) for seed in range(20)]
    return [question for question in asked if question is not None]


def test_long_scenes_have_long_captions() -> None:
    lengths = []
    for seed in range(200):
        question = ask(scene_of(seed, kind="many_events"), "caption", np.random.default_rng(0))
        assert question is not None
        lengths.append(len(words(question.answer())))
    assert 90 < max(lengths) <= 98


@pytest.mark.parametrize("type", [type for type in BENCHMARK_TYPES if type not in ("caption", "detail")])
def test_no_answer_is_too_frequent(type: str) -> None:
    answers = Counter(draw(seed, type)[1].answer() for seed in range(150))
    bound = {2: 0.62, 3: 0.47, 4: 0.38, 5: 0.34}.get(len(answers), 0.3)
    if type == "change":
        bound = 0.4
    assert answers.most_common(1)[0][1] / 150 <= bound, answers


def test_held_out_combinations_are_as_often_absent_as_present() -> None:
    counts: Counter[str] = Counter()
    for seed in range(300):
        _, question = draw(seed, "existence", "test")
        color, shape = words(question.question())[3:5]
        if (color, shape) in get_split("test").held_out:
            counts[question.answer()] += 1
    assert abs(counts["yes"] / counts.total() - 0.5) < 0.12


def test_back_again_takes_color_and_shape_together() -> None:
    """How many colors and how many shapes of the start are visible at the end predicts it little better than chance."""
    answers: dict[tuple[int, int], Counter[str]] = {}
    for seed in range(300):
        scene, question = draw(seed, "again")
        start, end = (Observer(scene, TIMES).frames[i] for i in (0, -1))
        shared = [len({pair[part] for pair in start} & {pair[part] for pair in end}) for part in (0, 1)]
        answers.setdefault((shared[0], shared[1]), Counter())[question.answer()] += 1
    assert sum(counts.most_common(1)[0][1] for counts in answers.values()) / 300 < 0.68


def test_unknown_types_and_styles_are_named() -> None:
    scene, question = draw(0, "color")
    with pytest.raises(ValueError, match="no question type 'taste'"):
        ask(scene, "taste", np.random.default_rng(0))
    with pytest.raises(ValueError, match="no style 'rhyme'"):
        question.answer("rhyme")
