"""Accuracy of a model by question type, with the right videos and with changed ones as controls."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from tqdm import tqdm

from vidlada_hf.evaluation.decoding import answer_questions
from vidlada_hf.evaluation.statistics import wilson

from .dataset import Example
from .questions import BENCHMARK_TYPES, LONG_TYPES
from .scoring import count_facts, is_right

CONTROLS = ("none", "gray", "other", "shuffled")


@dataclass(frozen=True)
class Score:
    """The score of a question type.

    Args:
        questions: how many were asked.
        right: how many answers were exactly right.
        accuracy: right / questions.
        low, high: 95 % interval of the accuracy (Wilson).
        facts, facts_right, facts_stated: of captions and descriptions: facts expected, those of them that the answers
            state, and all facts that the answers state.
        by_facts: for each number of expected facts [questions, facts_right, facts].
    """

    questions: int
    right: int
    accuracy: float
    low: float
    high: float
    facts: int | None = None
    facts_right: int | None = None
    facts_stated: int | None = None
    by_facts: dict[str, list[int]] | None = None


def measure(
    model: Any,
    processor: Any,
    examples: Sequence[Example],
    num_frames: int = 8,
    control: str = "none",
    batch_size: int = 16,
    seed: int = 0,
    **settings: Any,
) -> dict[str, Score]:
    """Asks all questions and scores the answers.

    Args:
        examples: with frames or files. The expected answers stay the same whatever `control` does to the videos.
        control: "none"; "gray": a video of one gray; "other": another example's video; "shuffled": the frames in
            another order. The last three need frames.
        seed: of the shuffling.
        settings: arguments of `generate`.

    Returns:
        The score of each question type, and "all".

    Raises:
        ValueError: an unknown control.
    """
    shown = list(change_videos(examples, control, seed))
    # A batch takes as many steps as its longest answer, so questions of a type go together.
    order = sorted(range(len(shown)), key=lambda i: BENCHMARK_TYPES.index(shown[i].type))
    questions = [shown[i].as_question() for i in order]
    answers = [""] * len(shown)
    with tqdm(total=len(shown), desc=f"{num_frames} frames, control: {control}", unit="question") as bar:
        batches = answer_questions(model, processor, questions, num_frames, batch_size, **settings)
        for i, answer in zip(order, (text for batch in batches for text in batch), strict=True):
            answers[i] = answer
            bar.update()
    return score_answers(examples, answers)


def change_videos(examples: Sequence[Example], control: str, seed: int = 0) -> Iterator[Example]:
    """The examples with the videos of a control, see `measure`."""
    if control not in CONTROLS:
        raise ValueError(f"There is no control {control!r}: pass one of {', '.join(map(repr, CONTROLS))}.")
    rng = np.random.default_rng(seed)
    for i, example in enumerate(examples):
        frames = example.frames
        if control == "none":
            yield example
            continue
        assert frames is not None, "Controls change frames: make the examples without `video_folder`."
        if control == "gray":
            frames = np.full_like(frames, 128)
        elif control == "other":
            frames = examples[(i + len(examples) // 2) % len(examples)].frames
        else:
            order = rng.permutation(len(frames))
            while (order == np.arange(len(frames))).all():
                order = rng.permutation(len(frames))
            frames = frames[order]
        yield replace(example, frames=frames)


def score_answers(examples: Sequence[Example], answers: Sequence[str]) -> dict[str, Score]:
    """Scores by type, and over all."""
    scores: dict[str, Score] = {}
    for type in [t for t in BENCHMARK_TYPES if any(e.type == t for e in examples)]:
        pairs = [(e, a) for e, a in zip(examples, answers, strict=True) if e.type == type]
        score = _score([is_right(e.details, a) for e, a in pairs])
        if type in LONG_TYPES:
            score = replace(score, **_score_facts(pairs))
        scores[type] = score
    return scores | {"all": _score([is_right(e.details, a) for e, a in zip(examples, answers, strict=True)])}


def _score(right: Sequence[bool]) -> Score:
    low, high = wilson(sum(right), len(right))
    return Score(len(right), sum(right), round(sum(right) / len(right), 4), round(low, 4), round(high, 4))


def _score_facts(pairs: Sequence[tuple[Example, str]]) -> dict[str, Any]:
    counts = [count_facts(example.details, answer) for example, answer in pairs]
    by_facts: dict[str, list[int]] = {}
    for expected in sorted({count.expected for count in counts}):
        those = [count for count in counts if count.expected == expected]
        by_facts[str(expected)] = [len(those), sum(count.right for count in those), expected * len(those)]
    return {
        "facts": sum(count.expected for count in counts),
        "facts_right": sum(count.right for count in counts),
        "facts_stated": sum(count.stated for count in counts),
        "by_facts": by_facts,
    }


def as_plain(scores: dict[str, Score]) -> dict[str, Any]:
    """Scores as plain values for JSON, without the fields that a type does not have."""
    return {type: {k: v for k, v in asdict(score).items() if v is not None} for type, score in scores.items()}


__all__ = ["CONTROLS", "Score", "as_plain", "change_videos", "measure", "score_answers"]
