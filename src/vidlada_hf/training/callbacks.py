"""Testing a model during its training, by denoising answers as a user would get them."""

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from moving_shapes import MovingShapes, count_facts, is_right
from moving_shapes.questions import LONG_TYPES

from ..evaluation.answering import answer_all
from ..modeling.generation_vidlada import VidLaDAGenerationConfig
from .schema import Count, check_arguments
from .task import Task

SETTINGS: dict[str, Any] = {"max_new_tokens": 64, "unmasking": "threshold"}


class DenoisingEvalCallback(TrainerCallback):
    """Every so many steps, and after the last, asks questions of the validation split and logs how many were right.

    Args:
        task: whose model is tested.
        every: steps between two tests.
        questions: how many are asked, of all types in turn.
        num_frames: of each video.
        settings: arguments of `generate`.
    """

    def __init__(
        self, task: Task, every: Count = 500, questions: Count = 105, num_frames: Count = 8, **settings: Any
    ) -> None:
        self.task, self.every, self.num_frames = task, every, num_frames
        self.settings = SETTINGS | settings
        self.questions = MovingShapes("validation", questions, num_frames)
        self.trainer: Any = None

    @classmethod
    def check(cls, options: dict[str, Any], where: str) -> None:
        """Raises a ValueError for options that neither this class nor `generate` takes, or that cannot be."""
        check_arguments(options, cls, where, besides=("task",), more=VidLaDAGenerationConfig.FIELDS)
        settings = {name: value for name, value in options.items() if name in VidLaDAGenerationConfig.FIELDS}
        VidLaDAGenerationConfig(**(SETTINGS | settings)).blocks()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Tests in the first process; the others wait at the next step."""
        if (state.global_step % self.every and state.global_step != state.max_steps) or not state.is_world_process_zero:
            return
        with torch.random.fork_rng(devices=[]):
            scores = self.examine()
        was_due = control.should_log
        self.trainer.log(scores)
        control.should_log = was_due  # or this process alone would leave out the log in which all take part

    def examine(self) -> dict[str, float]:
        """Exact match, 0..1, by type and over all; for long answers the part of their facts that is right."""
        model = self.task.model
        was_training = model.training
        model.eval()
        found: dict[str, list[float]] = {}
        examples = list(self.questions)
        answers = answer_all(model, self.task.processor, examples, self.num_frames, **self.settings)
        for example, answer in zip(examples, (text for batch in answers for text in batch), strict=True):
            score = float(is_right(example.details, answer))
            if example.type in LONG_TYPES:
                score = count_facts(example.details, answer).share
            found.setdefault(example.type, []).append(score)
        model.train(was_training)
        means = {f"denoised/{type}": round(sum(scores) / len(scores), 3) for type, scores in sorted(found.items())}
        return means | {"denoised": round(sum(map(sum, found.values())) / len(examples), 3)}


__all__ = ["DenoisingEvalCallback"]
