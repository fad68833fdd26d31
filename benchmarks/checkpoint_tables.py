"""Tables of what the embedded checkpoint answers: `tiny_accuracy*.json`, `tiny_errors.json`, `long_answers.json`.

And of what its twins answer: `twins.json`.
"""

from collections.abc import Callable
from typing import Any

import long_answers
import tiny_errors
import twins
from gpu_tables import Load

from vidlada_hf.evaluation.report import markdown_table

SHOWN = (
    "8 frames",
    "16 frames",
    "32 frames",
    "8 frames, gray video",
    "8 frames, another scene's video",
    "8 frames, shuffled",
    "8 frames, frame-local attention",
)
LENGTHS = {"one": (1, 1), "two": (2, 2), "three": (3, 3), "four": (4, 4), "five": (5, 5), "up to five": (1, 5)}
LENGTHS |= {"more": (6, 99)}


def percent(score: dict[str, Any]) -> str:
    """Of {"accuracy": 0..1, "questions": ...}, such as `89.2 %`."""
    right = round(score["accuracy"] * score["questions"])  # it is rounded already, and would be twice
    return f"{100 * right / score['questions']:.1f} %"


def accuracy(load: Load) -> str:
    """The share of right answers in each setting, with 95 % intervals."""
    settings = [(name, part["scores"]["all"]) for name, part in load("tiny_accuracy").items() if "scores" in part]
    settings.append(("8 frames, other questions too", load("tiny_accuracy_4200")["8 frames"]["scores"]["all"]))
    rows = [
        (name, percent(score), f"{100 * score['low']:.1f} to {100 * score['high']:.1f}", f"{score['questions']:,}")
        for name, score in settings
    ]
    return markdown_table(("setting", "right", "95 %", "questions"), rows)


def types(load: Load) -> str:
    """The share of right answers by type, in percent: of the most questions, and of those of the controls."""
    parts, most = load("tiny_accuracy"), load("tiny_accuracy_4200")
    names = [name for name in SHOWN if name in parts]
    rows = []
    for type, score in most["8 frames"]["scores"].items():
        prior = f"{100 * most['prior'][type]:.1f}" if type in most["prior"] else ""
        others = [f"{100 * parts[name]['scores'][type]['accuracy']:.1f}" for name in names]
        rows.append([type, prior, f"{100 * score['accuracy']:.1f}", *others])
    return markdown_table(["type", "prior", "8 frames, most questions", *names], rows)


def facts(load: Load) -> str:
    """The facts that captions and descriptions tell, by how many they should."""
    scores = load("tiny_accuracy_4200")["8 frames"]["scores"]
    rows = []
    for name, (low, high) in LENGTHS.items():
        cells = []
        for type in ("caption", "detail"):
            counts = [each for count, each in scores[type]["by_facts"].items() if low <= int(count) <= high]
            cells.append(share(sum(right for _, right, _ in counts), sum(expected for *_, expected in counts)))
        rows.append([name, *cells])
    return markdown_table(["facts", "captions", "descriptions"], rows)


def share(right: int, expected: int) -> str:
    """Such as `84 % of 25`."""
    return f"{100 * right / expected:.0f} % of {expected}" if expected else "-"


def of_file(name: str, table: Callable[[dict[str, Any]], str]) -> Callable[[Load], str]:
    """A script's own table of its file."""
    return lambda load: table(load(name))


TABLES: dict[str, Callable[[Load], str]] = {
    "tiny_accuracy": accuracy,
    "tiny_types": types,
    "tiny_facts": facts,
    "tiny_errors": of_file("tiny_errors", tiny_errors.table),
    "long_answers": of_file("long_answers", long_answers.table),
    "twins": of_file("twins", twins.table),
    "twins_types": of_file("twins", twins.types_table),
    "twins_answers": of_file("twins", twins.answers_table),
}
