"""The benchmark's own scoring, and that the package's evaluation agrees with it."""

import numpy as np
import pytest

from moving_shapes import BENCHMARK_TYPES, Example, MovingShapes
from moving_shapes.dataset import draw_question
from moving_shapes.questions import LONG_TYPES
from moving_shapes.scenes.scene import frame_times
from moving_shapes.scoring import count_facts, is_right
from vidlada_hf.evaluation import questions as package


def draw(seed: int, type: str):
    return draw_question(np.random.Generator(np.random.Philox(seed)), "train", type, frame_times(8))[1]


def test_both_wordings_are_right_whatever_their_case() -> None:
    question = draw(0, "color")
    assert is_right(question, question.answers[1].capitalize()) and is_right(question, question.answers[0].upper())
    assert not is_right(question, "white")


def test_captions_are_scored_fact_by_fact() -> None:
    caption = draw(5, "caption")
    assert count_facts(caption, caption.answer()) == (len(caption.facts),) * 3
    assert count_facts(caption, f"{caption.facts[0]} {caption.facts[0]} the red moon sings.")[:2] == (1, 2)


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    dataset = MovingShapes("test", 20 * len(BENCHMARK_TYPES))
    drawn = (dataset.draw(i) for i in range(len(dataset)))
    frames = np.zeros((1, 16, 16, 3), np.uint8)  # the videos do not matter here
    return [Example(frames, None, q.question(), q.answer(), q.type, q, scene) for scene, q in drawn]


def texts_for(examples: list[Example], index: int) -> list[str]:
    """The answers of an example and of the next two of its type, as a model may write them."""
    answers = [answer for step in (0, 1, 2) for answer in examples[index - step * len(BENCHMARK_TYPES)].details.answers]
    plain = [*answers, *(answer.removesuffix(".") for answer in answers)]
    return [
        *plain,
        *(text.upper() for text in plain),
        *(f" {text.replace(' ', '  ')} " for text in plain),
        "",
        "unicorn",
    ]


def test_the_package_finds_the_same_answers_right(examples: list[Example]) -> None:
    assert len(examples) == 420
    for i, example in enumerate(examples):
        question = example.as_question()
        verdicts = [(is_right(example.details, text), text) for text in texts_for(examples, i)]
        assert verdicts == [(package.is_right(question, text), text) for _, text in verdicts]
        assert {right for right, _ in verdicts} == {True, False}


def test_the_package_scores_captions_alike(examples: list[Example]) -> None:
    for i, example in enumerate(examples):
        if example.type in LONG_TYPES and len(example.details.facts) > 1:
            other = examples[i - len(BENCHMARK_TYPES)].details.facts
            for facts in (example.details.facts[:1], example.details.facts, example.details.facts[1:] + other):
                text = " ".join(facts)
                expected = count_facts(example.details, text).share
                assert package.score_answer(example.as_question(), text) == pytest.approx(expected)
