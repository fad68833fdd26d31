"""Do parallel decoding and caches keep long answers right? Every unmasking rule with exact decoding and three caches.

    python benchmarks/long_answers.py [--questions 120] [--threads 1] [--output FILE.json]

The embedded checkpoint on captions and descriptions of the moving shapes' test split, the only answers here of more
than a few tokens: 8 frames, a canvas of 128 tokens, blocks of 32, at most one step a token. Besides what `vidlada
bench` measures, each set-up's answers are read fact by fact: how many of the facts are told, how many of the sentences
told are right, how many are no sentence of this world at all ("broken"), and how much an answer repeats itself. Caches
of output tokens are known to raise repetition (arXiv 2601.20520), which the share of right answers need not show. The
facts told are compared, question by question, with those of exact decoding by the official rule ("quota").

An interrupted run goes on where it was: delete the file to measure anew. `--quick` asks an untrained model, with a few
of the set-ups.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moving_shapes import Example, MovingShapes
from moving_shapes.facts import is_sentence, split_facts
from moving_shapes.questions import LONG_TYPES
from moving_shapes.scoring import count_facts
from moving_shapes.train.tiny_model import build_tiny
from moving_shapes.vocabulary import words
from vidlada_hf.evaluation.bench import BenchOptions, run_bench
from vidlada_hf.evaluation.decoding import DecodingRunner, combine_setups
from vidlada_hf.evaluation.record import Record
from vidlada_hf.evaluation.report import markdown_table

CACHES = ("none", "mars", "dual", "interval")
SETUPS = combine_setups(CACHES)
BASE, DRAWS = SETUPS[0].name, 4000  # what all are compared with; draws of questions for an interval
GRAM = 4  # words in a row, as in the usual measure of repetition (arXiv 1908.04319)


def repetition(text: str) -> float:
    """The share of an answer's runs of four words that stood in it before, 0..1; 0 for fewer than four words."""
    tokens = words(text)
    grams = [tuple(tokens[i : i + GRAM]) for i in range(len(tokens) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def read_answers(examples: Sequence[Example], texts: Sequence[str]) -> dict[str, Any]:
    """What a set-up's answers tell, over all questions.

    Returns:
        "facts": the share of the expected facts that are told; "told_right": the share of the sentences told that are
        right; "broken": the share of them that no video could make true; "repetition": the mean over the answers.
    """
    counts = [count_facts(example.details, text) for example, text in zip(examples, texts, strict=True)]
    sentences = [sentence for text in texts for sentence in split_facts(text)]
    right = sum(count.right for count in counts)
    return {
        "facts": round(right / sum(count.expected for count in counts), 4),
        "told_right": round(right / max(1, sum(count.stated for count in counts)), 4),
        "broken": round(sum(not is_sentence(sentence) for sentence in sentences) / max(1, len(sentences)), 4),
        "repetition": round(sum(map(repetition, texts)) / len(texts), 4),
    }


def points_apart(examples: Sequence[Example], texts: Sequence[str], base: Sequence[str]) -> list[float]:
    """How much more of the facts a set-up tells than another one, in points, and the ends of a 95 % interval.

    The interval is that of 4,000 draws of as many questions, with replacement: facts of one answer go together.
    """
    counts, others = (
        [count_facts(example.details, text) for example, text in zip(examples, told, strict=True)]
        for told in (texts, base)
    )
    expected = np.array([count.expected for count in counts])
    more = np.array([count.right - other.right for count, other in zip(counts, others, strict=True)])
    drawn = np.random.default_rng(0).integers(0, len(examples), (DRAWS, len(examples)))
    ratios = 100 * more[drawn].sum(1) / expected[drawn].sum(1)
    return [round(float(x), 2) for x in (100 * more.sum() / expected.sum(), *np.percentile(ratios, (2.5, 97.5)))]


def count_passes(data: dict[str, Any], entry: dict[str, Any]) -> tuple[float, float]:
    """Forward passes for an answer, and tokens of the answer, with its end, for a pass, of the timed questions.

    "tokens" of the counts are more: positions behind the end are committed too, until it is known.
    """
    timed = entry["ids"][: data["setup"]["timed_questions"]]
    forwards = entry["counts"]["forwards"]
    return forwards / len(timed), sum(len(ids.split()) + 1 for ids in timed) / forwards


def table(data: dict[str, Any]) -> str:
    """Markdown: a line a set-up."""
    head = ["cache", "rule", "facts told", "points (95 %)", "told and right", "broken", "repetition"]
    head += ["passes", "tokens a pass", "faster"]
    rows = []
    for entry in [data["results"][each.name] for each in SETUPS if each.name in data["results"]]:
        read = entry["answers"]
        row = [entry["cache_strategy"], entry["unmasking"]]
        facts, *others = (f"{100 * read[key]:.1f} %" for key in ("facts", "told_right", "broken", "repetition"))
        points = "{:+.1f} ({:+.1f} to {:+.1f})".format(*read["points"])
        row += [facts, points, *others]
        passes, tokens = count_passes(data, entry)
        rows.append([*row, f"{passes:.1f}", f"{tokens:.2f}", f"{entry['summary']['speedup']:.1f}x"])
    return markdown_table(head, rows, "llrrrrrrrr")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--timed-questions", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    settings, setups = {"max_new_tokens": 128, "block_length": 32}, SETUPS
    if options.quick:
        options.questions, options.rounds, options.timed_questions = 2, 1, 1
        settings, setups = {"max_new_tokens": 8, "block_length": 8}, SETUPS[::9]
        runner = DecodingRunner(*build_tiny(), 8, settings=settings)
    else:
        runner = DecodingRunner.from_pretrained(None, 8, settings=settings)
    examples = list(MovingShapes("test", options.questions, types=LONG_TYPES))
    asked = [example.as_question() for example in examples]
    amount = BenchOptions(options.rounds, options.timed_questions)
    data = run_bench(runner, asked, setups, options.output, "vidlada-tiny", amount)
    record = Record(options.output, data["setup"])
    record.data["expected"] = read_answers(examples, [example.answer for example in examples])
    for entry in record.data["results"].values():
        points = points_apart(examples, entry["texts"], record.data["results"][BASE]["texts"])
        entry["answers"] = read_answers(examples, entry["texts"]) | {"points": points}
    record.save()
    print(table(record.data))


if __name__ == "__main__":
    main()
