import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from moving_shapes import BENCHMARK_TYPES
from moving_shapes.train.tiny_model import build_tiny
from vidlada_hf.training.callbacks import DenoisingEvalCallback
from vidlada_hf.training.task import Task


@pytest.fixture(scope="module")
def task() -> Task:
    return Task(*build_tiny())


class Journal:
    """Stands for a trainer."""

    def __init__(self) -> None:
        self.lines: list[dict] = []

    def log(self, line: dict) -> None:
        self.lines.append(line)


def run(examiner: DenoisingEvalCallback, folder, steps: int) -> list[dict]:
    """What is logged in so many steps."""
    examiner.trainer = journal = Journal()
    state = TrainerState(max_steps=steps, is_world_process_zero=True)
    for state.global_step in range(1, steps + 1):
        examiner.on_step_end(TrainingArguments(str(folder), use_cpu=True), state, TrainerControl())
    return journal.lines


def test_it_asks_at_its_steps_and_after_the_last(task, tmp_path, monkeypatch):
    examiner = DenoisingEvalCallback(task, every=2, questions=1)
    monkeypatch.setattr(examiner, "examine", lambda: {"denoised": 0.5})
    assert len(run(examiner, tmp_path, 5)) == 3  # 2, 4 and 5


def test_answers_are_denoised_and_scored_by_type(task):
    task.model.train()
    examiner = DenoisingEvalCallback(task, questions=len(BENCHMARK_TYPES), max_new_tokens=4)
    scores = examiner.examine()
    assert task.model.training
    assert set(scores) == {"denoised", *(f"denoised/{type}" for type in BENCHMARK_TYPES)}
    assert all(0 <= score <= 1 for score in scores.values())


def test_what_is_right_scores(task, monkeypatch):
    examiner = DenoisingEvalCallback(task, questions=21)
    answers = [example.details.answers[0] for example in examiner.questions]
    monkeypatch.setattr("vidlada_hf.training.callbacks.answer_all", lambda *args, **kwargs: iter([answers]))
    assert set(examiner.examine().values()) == {1.0}
