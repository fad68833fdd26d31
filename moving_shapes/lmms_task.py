"""Moving shapes as tasks of lmms-eval: `write_task` writes their YAML files, the other functions are called by them.

`moving_shapes_open` are the questions that are answered in words, `moving_shapes_choice` those that are answered with a
letter, `moving_shapes_scored` these by the likelihood of each letter; `moving_shapes` are the first two together.
"""

from pathlib import Path
from typing import Any

from vidlada_hf.evaluation.questions import VideoQuestion, is_right

from .questions import CHOICE_TYPES
from .vocabulary import LETTERS

_TASK = """\
task: moving_shapes_{name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {questions}
test_split: test
output_type: {output_type}
process_docs: !function {module}.{documents}
doc_to_visual: !function {module}.doc_to_visual
doc_to_text: question
doc_to_target: !function {module}.doc_to_target
lmms_eval_specific_kwargs:
  default:
    folder: {folder}
metadata:
  version: 1.0
"""
_GENERATED = """\
process_results: !function {module}.process_results
generation_kwargs:
  max_new_tokens: {tokens}
  temperature: 0
metric_list:
  - metric: right
    aggregation: mean
    higher_is_better: true
"""
_SCORED = """\
doc_to_choice: !function {module}.doc_to_choice
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""
_GROUP = """\
group: moving_shapes
task:
  - moving_shapes_open
  - moving_shapes_choice
"""


def write_task(questions: Path) -> Path:
    """Writes the YAML files beside a file of `write_questions`.

    Returns:
        Their folder, for `--include` of `vidlada eval` or `--include_path` of lmms-eval.
    """
    folder = questions.resolve().parent
    shared = {"questions": questions.name, "folder": folder, "module": __name__}
    generated, scored = {"output_type": "generate_until"}, {"output_type": "multiple_choice"}
    choices = {"documents": "only_choices"}
    tasks: dict[str, tuple[str, dict[str, Any]]] = {
        "open": (_TASK + _GENERATED, {**generated, "documents": "only_open", "tokens": 128}),
        "choice": (_TASK + _GENERATED, {**generated, **choices, "tokens": 8}),
        "scored": (_TASK + _SCORED, {**scored, **choices}),
    }
    for name, (template, fields) in tasks.items():
        text = template.format(name=name, **shared, **fields)
        (folder / f"moving_shapes_{name}.yaml").write_text(text, encoding="utf-8")
    (folder / "moving_shapes.yaml").write_text(_GROUP, encoding="utf-8")
    return folder


def only_choices(documents: Any) -> Any:
    """Of `datasets` data, the questions with options."""
    return documents.filter(lambda document: document["type"] in CHOICE_TYPES)


def only_open(documents: Any) -> Any:
    """Of `datasets` data, the questions without options."""
    return documents.filter(lambda document: document["type"] not in CHOICE_TYPES)


def doc_to_visual(document: dict[str, Any], options: dict[str, Any]) -> list[str]:
    """The video's path."""
    return [str(Path(options["folder"]) / document["video"])]


def doc_to_target(document: dict[str, Any]) -> Any:
    """The number of the right letter, or the first right answer where there are no letters."""
    answer = document["answers"][0]
    return LETTERS.index(answer) if answer in LETTERS else answer


def doc_to_choice(document: dict[str, Any]) -> list[str]:
    """The letters."""
    return list(LETTERS)


def process_results(document: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Whether the answer is right, as `vidlada bench` judges it."""
    question = VideoQuestion(Path(document["video"]), document["question"], tuple(document["answers"]))
    return {"right": float(bool(is_right(question, results[0])))}


__all__ = ["write_task"]
