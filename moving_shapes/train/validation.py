"""The questions on which training is evaluated: `questions: "moving_shapes.train.validation:validation_questions"`."""

from vidlada_hf.evaluation.questions import VideoQuestion

from ..dataset import MovingShapes
from ..questions import BENCHMARK_TYPES

QUESTIONS_PER_TYPE = 5


def validation_questions() -> list[VideoQuestion]:
    """Five questions of each type of the benchmark, from the validation split, about 8 frames each."""
    examples = MovingShapes("validation", QUESTIONS_PER_TYPE * len(BENCHMARK_TYPES), num_frames=8)
    return [example.as_question() for example in examples]


__all__ = ["validation_questions"]
