"""What happens beside the training: its time is taken, and its answers are tested as a user would get them."""

import time
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..evaluation.decoding import answer_questions
from ..evaluation.questions import VideoQuestion, load_questions, score_answer
from ..modeling.generation_config_vidlada import VidLaDAGenerationConfig
from .schema import Count, check_arguments
from .task import Task

SETTINGS: dict[str, Any] = {"max_new_tokens": 64, "unmasking": "threshold"}


class ElapsedTimeCallback(TrainerCallback):
    """The seconds that a run has taken, also before it was resumed, as its log's "seconds" tell them."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *others: Any, **kwargs: Any) -> None:
        """Goes on from the last line of the log."""
        before = next((line["seconds"] for line in reversed(state.log_history) if "seconds" in line), 0.0)
        self.began = time.monotonic() - before

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self.began, 1)


class DenoisingEvalCallback(TrainerCallback):
    """At regular steps, and after the last, answers questions and logs how many were right.

    The log has "denoised/TYPE" for each type of question, and "denoised" over all: means of `score_answer`, 0..1.
    Questions whose answer is not known are left out.

    Args:
        task: whose model answers.
        every: steps between two tests.
        questions: as of `load_questions`: a file, `datasets` data, or "module:function"; None: the shipped ones.
        count: how many of them, the first ones; None: all.
        num_frames: of each video.
        settings: arguments of `generate`.
    """

    trainer: Any  # which logs the scores; set once it is built

    def __init__(
        self,
        task: Task,
        every: Count = 500,
        questions: str | None = None,
        count: Count | None = None,
        num_frames: Count = 8,
        **settings: Any,
    ) -> None:
        self.task, self.every, self.num_frames = task, every, num_frames
        self.settings = SETTINGS | settings
        self.questions = load_answered(questions, count)

    @classmethod
    def check(cls, options: dict[str, Any], where: str) -> None:
        """Raises a ValueError for options that neither this class nor `generate` takes, or that cannot be; an OSError
        too for questions that cannot be read."""
        check_arguments(options, cls, where, besides=("task",), more=VidLaDAGenerationConfig.FIELDS)
        settings = {name: value for name, value in options.items() if name in VidLaDAGenerationConfig.FIELDS}
        VidLaDAGenerationConfig(**(SETTINGS | settings)).blocks()
        if options:
            load_answered(options.get("questions"), options.get("count"))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Tests in the first process; the others wait at the next step."""
        if (state.global_step % self.every and state.global_step != state.max_steps) or not state.is_world_process_zero:
            return
        with torch.random.fork_rng(devices=[]):
            scores = self.evaluate()
        was_due = control.should_log
        self.trainer.log(scores)
        control.should_log = was_due  # or this process alone would leave out the log in which all take part

    def evaluate(self) -> dict[str, float]:
        """Mean scores, 0..1, by type and over all questions."""
        model = self.task.model
        was_training = model.training
        model.eval()
        batches = answer_questions(model, self.task.processor, self.questions, self.num_frames, **self.settings)
        scores: dict[str, list[float]] = {}
        for question, text in zip(self.questions, (text for batch in batches for text in batch), strict=True):
            scores.setdefault(question.type, []).append(score_answer(question, text) or 0.0)
        model.train(was_training)
        means = {f"denoised/{type}": round(sum(own) / len(own), 3) for type, own in sorted(scores.items())}
        return means | {"denoised": round(sum(map(sum, scores.values())) / len(self.questions), 3)}


def load_answered(source: str | None, count: int | None) -> list[VideoQuestion]:
    """Questions of a source whose answers are known; a ValueError if there are none."""
    questions = [question for question in load_questions(source, count) if question.answers]
    if not questions:
        raise ValueError(f"The questions of {source} have no answers to compare with: add `answer` to them.")
    return questions


__all__ = ["DenoisingEvalCallback", "ElapsedTimeCallback"]
