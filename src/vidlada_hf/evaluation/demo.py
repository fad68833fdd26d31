"""A demonstration that needs nothing but this package: the clip and the questions that come with it."""

import json
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..processing.video_processing_vidlada import sample_frame_indices
from ..processing.video_reading_vidlada import read_video
from .decoding import DecodingRunner, answer_questions, prepare_inputs
from .picture import draw_denoising
from .questions import VideoQuestion, load_questions, score_answer

NUM_FRAMES = 8


@dataclass(frozen=True)
class Reply:
    """A question, the model's answer, the expected one, and the answer's score 0..1 (see `score_answer`)."""

    question: str
    answer: str
    expected: str
    score: float


@dataclass(frozen=True)
class Demonstration:
    """What `run_demo` did.

    Args:
        model: the checkpoint's folder or id.
        video: that all questions are about.
        replies: to the questions.
        picture: of the last answer being denoised; None without matplotlib.
    """

    model: str
    video: Path
    replies: list[Reply]
    picture: Path | None


def run_demo(output_dir: Path, model: str | None = None) -> Demonstration:
    """Answers the shipped questions, and writes answers.json and denoising.png into `output_dir`.

    Args:
        model: a checkpoint's folder or id; None: the embedded one, which was trained for such questions.
    """
    runner, questions = DecodingRunner.from_pretrained(model, NUM_FRAMES), load_questions()
    batches = answer_questions(runner.model, runner.processor, questions, NUM_FRAMES)
    answers = [text for batch in batches for text in batch]
    replies = [
        Reply(question.question, answer, question.answers[0], round(score_answer(question, answer) or 0.0, 2))
        for question, answer in zip(questions, answers, strict=True)
    ]
    output_dir.mkdir(parents=True, exist_ok=True)
    (output_dir / "answers.json").write_text(json.dumps([asdict(reply) for reply in replies], indent=2) + "\n")
    picture = None
    if find_spec("matplotlib") is not None:
        picture = draw_answer(runner, questions[-1], output_dir / "denoising.png")
    return Demonstration(runner.model.name_or_path, Path(str(questions[-1].video)), replies, picture)


def draw_answer(runner: DecodingRunner, question: VideoQuestion, path: Path) -> Path:
    """Denoises an answer once more, and draws its steps."""
    model, processor = runner.model, runner.processor
    inputs = prepare_inputs(processor, [question], runner.num_frames).to(model.device, model.dtype)
    output: Any = model.generate(**inputs, return_dict_in_generate=True)
    frames, _ = read_video(
        question.video,
        lambda video: sample_frame_indices(video.total_num_frames or 0, num_frames=runner.num_frames).tolist(),
    )
    steps = [step.canvas[0].tolist() for step in output.trace]
    return draw_denoising(frames, question.question, steps, processor.tokenizer, model.config.mask_token_id, path)


__all__ = ["Demonstration", "Reply", "run_demo"]
