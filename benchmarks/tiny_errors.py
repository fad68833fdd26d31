"""What the embedded checkpoint says where it is wrong: which mistakes make up a type's shortfall, and in which videos.

    python benchmarks/tiny_errors.py             # writes tiny_errors.json beside this file, a quarter of an hour

Test split, 8 frames, 120 questions a type: other questions than those of tiny_accuracy.py (another seed). Shapes of
combinations that training never showed are counted apart from others. And as many questions about the training split,
of whose fresh scenes combinations and backgrounds are known.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm
from vidlada_hf.asking import EMBEDDED_CHECKPOINT

from moving_shapes import Example, MovingShapes, is_right
from moving_shapes.scenes.scene import COLORS, SHAPES
from moving_shapes.scenes.splits import get_split
from vidlada_hf import VidLaDAForConditionalGeneration, VidLaDAProcessor
from vidlada_hf.evaluation.answering import answer_all

NUMBERS = ("none", "one", "two", "three", "four", "five", "six")
FRAMES, BATCH, SEED = 8, 20, 1


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=120, help="of each type")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args(arguments)
    model = VidLaDAForConditionalGeneration.from_pretrained(EMBEDDED_CHECKPOINT).eval()
    processor = VidLaDAProcessor.from_pretrained(EMBEDDED_CHECKPOINT)
    result: dict[str, Any] = {"setup": {"seed": SEED, "frames": FRAMES, "questions_a_type": options.questions}}
    for split in ("test", "train"):
        questions = MovingShapes(split, options.questions * len(KINDS), FRAMES, tuple(KINDS), seed=SEED)
        result[split] = ask_all(model, processor, questions)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))


def ask_all(model: Any, processor: Any, questions: MovingShapes) -> dict[str, dict[str, Any]]:
    """For each type how many answers are right or wrong in which way, and [right, asked] about combinations that
    training never shows and about others."""
    found: dict[str, dict[str, Any]] = {
        type: {"answers": Counter(), "held out": [0, 0], "shown": [0, 0]} for type in KINDS
    }
    for start in tqdm(range(0, len(questions), BATCH), desc=questions.split.name):
        examples = questions[start : start + BATCH]
        (answers,) = answer_all(model, processor, examples, FRAMES, BATCH)
        for example, answer in zip(examples, answers, strict=True):
            right = is_right(example.details, answer)
            of_type = found[example.type]
            of_type["answers"]["right" if right else KINDS[example.type](example, answer.lower())] += 1
            part = of_type["held out" if is_held_out(example) else "shown"]
            part[0], part[1] = part[0] + right, part[1] + 1
    for of_type in found.values():
        of_type["answers"] = dict(of_type["answers"].most_common())
    return found


def is_held_out(example: Example) -> bool:
    """Whether a shape that the question is about is of a combination that training never shows, at some time; of a
    question about no single shape, whether one of the video is."""
    never_shown = get_split(example.scene.split).held_out
    places = example.details.shapes or range(len(example.scene.shapes))
    return any(look in never_shown for place in places for look in example.scene.shapes[place].looks)


def wrong_color(example: Example, answer: str) -> str:
    """Whose color is it?"""
    said = next((color for color in COLORS if color in answer), None)
    looks = [{color for color, _ in shape.looks} for shape in example.scene.shapes]
    asked = {color for place in example.details.shapes[:1] for color in looks[place]}
    if said is None:
        return "no color"
    if said in asked:
        return "its color at another time"
    return "another shape's color" if any(said in colors for colors in looks) else "a color that is not there"


def wrong_shape(example: Example, answer: str) -> str:
    """Is it in the video?"""
    said = next((shape for shape in SHAPES if shape in answer), None)
    there = {shape.shape for shape in example.scene.shapes}
    return "no shape" if said is None else "another shape" if said in there else "a shape that is not there"


def wrong_number(example: Example, answer: str) -> str:
    """How far is it off?"""
    said, right = (
        next((n for n, word in enumerate(NUMBERS) if word in text), None) for text in (answer, example.answer)
    )
    if said is None or right is None:
        return "no number"
    return {-1: "one too few", 1: "one too many"}.get(said - right, "further off")


def wrong_yes_or_no(example: Example, answer: str) -> str:
    """Which of them?"""
    return "yes for no" if "yes" in answer else "no for yes"


def wrong_choice(example: Example, answer: str) -> str:
    """Is it the answer that is wrong, or its letter?"""
    options = {word.lower(): letter.lower() for letter, word in re.findall(r"\((\w)\) (\w+)", example.question)}
    letter, word = re.search(r"\((\w)\)", answer), next((word for word in options if word in answer.split()), None)
    if word is None or letter is None:
        return "no option"
    if options[word] == example.answer.lower().strip("()"):
        return "the right word, another letter"
    return "a wrong word" if options[word] == letter[1] else "a wrong word, another letter"


KINDS: dict[str, Callable[[Example, str], str]] = {
    "color": wrong_color,
    "start_color": wrong_color,
    "end_color": wrong_color,
    "when": wrong_color,
    "shape": wrong_shape,
    "mover": wrong_shape,
    "distinct": wrong_number,
    "appearances": wrong_number,
    "disappearance": wrong_yes_or_no,
    "again": wrong_yes_or_no,
    "choice": wrong_choice,
}


def table(result: dict) -> str:
    """Markdown: a line a type, its mistakes by frequency."""
    lines = [
        "| type | right | of held-out combinations | of others | training split | mistakes |",
        "|---|" + "---:|" * 4 + "---|",
    ]
    for type, test in result["test"].items():
        mistakes = ", ".join(f"{kind} {n}" for kind, n in test["answers"].items() if kind != "right")
        parts = [total(test), test["held out"], test["shown"], total(result["train"][type])]
        lines.append(f"| {type} | {' | '.join(map(percent, parts))} | {mistakes} |")
    return "\n".join(lines)


def total(of_type: dict) -> list[int]:
    """[right, asked] of a type."""
    return [of_type["answers"].get("right", 0), sum(of_type["answers"].values())]


def percent(part: list[int]) -> str:
    """Percent right, and of how many."""
    right, asked = part
    return f"{100 * right / asked:.0f} % of {asked}" if asked else "-"


if __name__ == "__main__":
    main()
