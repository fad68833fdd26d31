"""Accuracy of guesses without the video: `python -m moving_shapes.baselines.answer_priors`.

Three guesses for each question type:

- prior: the most frequent answer of the split;
- text: the most frequent answer in the training split to exactly these words (of the type, if the words are new), which
  is what a model without the video can learn;
- oracle: the same, learned on the split itself with the example left out: what its held-out combinations give away.
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

from ..dataset import MovingShapes
from ..questions import BENCHMARK_TYPES

Given = TypeVar("Given", bound=Hashable)
Answer = TypeVar("Answer", bound=Hashable)


@dataclass(frozen=True)
class Prior:
    """Accuracies, 0..1, of guesses about a question type.

    Args:
        type: of `questions.QUESTION_TYPES`.
        questions: how many were drawn.
        answers: how many of their answers differ.
        most_frequent: the most frequent answer.
        prior, text, oracle: the guesses described in the module.
    """

    type: str
    questions: int
    answers: int
    most_frequent: str
    prior: float
    text: float
    oracle: float


def measure_prior(split: str, type: str, questions: int = 1000, seed: int = 0) -> Prior:
    """Draws that many questions of a type from a split, and four times as many from training, and guesses."""
    pairs = _draw(split, type, questions, seed)
    answers = Counter(answer for _, answer in pairs)
    word_counts, type_counts = learn(_draw("train", type, 4 * questions, seed + 1))
    own_words, _ = learn(pairs)
    top, frequency = answers.most_common(1)[0]
    text = oracle = 0
    for question, answer in pairs:
        known = word_counts.get(question) or type_counts
        text += known.most_common(1)[0][0] == answer
        others = own_words[question] - Counter([answer]) or answers - Counter([answer])
        oracle += bool(others) and others.most_common(1)[0][0] == answer
    return Prior(type, questions, len(answers), top, frequency / questions, text / questions, oracle / questions)


def _draw(split: str, type: str, questions: int, seed: int) -> list[tuple[str, str]]:
    dataset = MovingShapes(split, questions, types=(type,), seed=seed)
    drawn = (dataset.draw(index)[1] for index in range(questions))
    return [(question.questions[0], question.answers[0]) for question in drawn]


def learn(pairs: Sequence[tuple[Given, Answer]]) -> tuple[dict[Given, Counter[Answer]], Counter[Answer]]:
    """How often each answer was right, for each given observation, and over all."""
    by_given: defaultdict[Given, Counter[Answer]] = defaultdict(Counter)
    for given, answer in pairs:
        by_given[given][answer] += 1
    return dict(by_given), Counter(answer for _, answer in pairs)


def table(priors: list[Prior]) -> str:
    """A Markdown table, in percent."""
    lines = ["| type | answers | most frequent | prior | text | oracle |", "|---|---:|---|---:|---:|---:|"]
    for p in priors:
        top = p.most_frequent if len(p.most_frequent) <= 40 else p.most_frequent[:37] + "..."
        lines.append(f"| {p.type} | {p.answers} | {top} | {p.prior:.1%} | {p.text:.1%} | {p.oracle:.1%} |")
    return "\n".join(lines).replace("%", " %")


def main(arguments: list[str] | None = None) -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description="Accuracy of guesses without the video, by question type.")
    parser.add_argument("--split", default="test")
    parser.add_argument("--questions", type=int, default=1000, help="of each type")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a Markdown table")
    options = parser.parse_args(arguments)
    priors = [measure_prior(options.split, type, options.questions, options.seed) for type in BENCHMARK_TYPES]
    print(json.dumps([asdict(prior) for prior in priors], indent=2) if options.json else table(priors))


if __name__ == "__main__":
    main()
