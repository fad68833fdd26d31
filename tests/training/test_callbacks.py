import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from tests.tiny_models import build_tiny
from vidlada_hf.evaluation.questions import VideoQuestion
from vidlada_hf.training import callbacks
from vidlada_hf.training.callbacks import DenoisingEvalCallback
from vidlada_hf.training.task import Task

QUESTIONS = [
    VideoQuestion("a.mp4", "What color is it?", ("red",), "color"),
    VideoQuestion("a.mp4", "What color was it?", ("blue",), "color"),
    VideoQuestion("a.mp4", "What happens?", ("It is red. It turns blue. It goes.",), "caption"),
    VideoQuestion("a.mp4", "Who knows?", (), "unknown"),
]


@pytest.fixture(scope="module")
def task() -> Task:
    return Task(*build_tiny())


@pytest.fixture
def questions(monkeypatch) -> str:
    monkeypatch.setattr(callbacks, "load_questions", lambda source, count: QUESTIONS[:count])
    return "questions.jsonl"


class Journal:
    """Stands for a trainer."""

    def __init__(self) -> None:
        self.lines: list[dict] = []

    def log(self, line: dict) -> None:
        self.lines.append(line)


def run(callback: DenoisingEvalCallback, folder, steps: int) -> list[dict]:
    """What is logged in so many steps."""
    callback.trainer = journal = Journal()
    state = TrainerState(max_steps=steps, is_world_process_zero=True)
    for state.global_step in range(1, steps + 1):
        callback.on_step_end(TrainingArguments(str(folder), use_cpu=True), state, TrainerControl())
    return journal.lines


def test_it_asks_at_its_steps_and_after_the_last(task, questions, tmp_path, monkeypatch):
    callback = DenoisingEvalCallback(task, every=2, questions=questions)
    monkeypatch.setattr(callback, "evaluate", lambda: {"denoised": 0.5})
    assert len(run(callback, tmp_path, 5)) == 3  # 2, 4 and 5


def test_the_shipped_questions_are_denoised_unless_others_are_named(task):
    task.model.train()
    callback = DenoisingEvalCallback(task, count=3, num_frames=2, max_new_tokens=4)
    scores = callback.evaluate()
    assert task.model.training
    assert set(scores) == {"denoised", *(f"denoised/{question.type}" for question in callback.questions)}
    assert all(0 <= score <= 1 for score in scores.values())


def test_scores_are_means_by_type_and_over_all(task, questions, monkeypatch):
    """Of several sentences the share that was said counts."""
    said = [["Red.", "green"], ["It is red. It turns green. It goes."]]
    monkeypatch.setattr(callbacks, "answer_questions", lambda *args, **kwargs: iter(said))
    scores = DenoisingEvalCallback(task, questions=questions).evaluate()
    assert scores == {"denoised/caption": 0.667, "denoised/color": 0.5, "denoised": round((1 + 0 + 2 / 3) / 3, 3)}
