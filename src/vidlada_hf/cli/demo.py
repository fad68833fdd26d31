"""A demonstration that needs nothing but this package: it makes a video, and asks the embedded checkpoint about it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moving_shapes import Example, Question, Scene, ask, count_facts, is_right, write_video
from moving_shapes.scenes.sampling import sample_scene

from ..evaluation.answering import answer_all, prepare
from ..evaluation.picture import draw_denoising
from ..hub.locate import find_checkpoint
from ..modeling.modeling_vidlada import VidLaDAForConditionalGeneration
from ..processing.processing_vidlada import VidLaDAProcessor
from ..processing.video_processing_vidlada import sample_frame_indices
from ..processing.video_reading_vidlada import read_video

TYPES = ("color", "shape", "counting", "motion", "first", "last", "disappearance", "mover", "choice", "caption")
SCENE_SEED = 7
FRAMES = 8


@dataclass(frozen=True)
class Reply:
    """A question of the demonstration.

    Args:
        question, answer, expected: as texts.
        right: whether the answer is the expected one in one of its forms; for captions the part of facts told, 0..1.
    """

    question: str
    answer: str
    expected: str
    right: float


@dataclass(frozen=True)
class Demonstration:
    """What `run_demo` did: the video and the picture that it made, the checkpoint's folder, and the replies."""

    video: Path
    picture: Path
    model: str
    replies: list[Reply]


def run_demo(output_dir: Path, model: str | None = None) -> Demonstration:
    """Writes clip.mp4, denoising.png and answers.json into `output_dir`.

    Args:
        model: a checkpoint that knows moving shapes; None: the embedded one.
    """
    name = find_checkpoint(model)
    processor = VidLaDAProcessor.from_pretrained(name)
    network = VidLaDAForConditionalGeneration.from_pretrained(name).eval()
    scene, questions = make_scene()
    video = write_video(scene, output_dir / "clip.mp4", size=256)
    examples = [
        Example(None, video, question.question(), question.answer(), question.type, question, scene)
        for question in questions
    ]
    answers = [text for batch in answer_all(network, processor, examples, FRAMES) for text in batch]
    replies = [
        Reply(example.question, answer, example.answer, judge(example.details, answer))
        for example, answer in zip(examples, answers, strict=True)
    ]
    picture = draw_caption(network, processor, examples[-1], output_dir / "denoising.png")
    (output_dir / "answers.json").write_text(json.dumps([asdict(reply) for reply in replies], indent=2) + "\n")
    return Demonstration(video, picture, name, replies)


def make_scene() -> tuple[Scene, list[Question]]:
    """A scene of the test split in which something moves, comes and goes, and a question of each of `TYPES`."""
    rng = np.random.default_rng(SCENE_SEED)
    while True:
        scene = sample_scene(rng, "test", "arrivals", 3)
        questions = [ask(scene, type, rng) for type in TYPES]
        if all(question is not None for question in questions):
            return scene, [question for question in questions if question is not None]


def judge(question: Question, answer: str) -> float:
    """1 or 0; for several facts the part of them that was told."""
    if len(question.facts) == 1:
        return float(is_right(question, answer))
    return round(count_facts(question, answer).share, 2)


def draw_caption(
    network: VidLaDAForConditionalGeneration, processor: VidLaDAProcessor, example: Example, path: Path
) -> Path:
    """Denoises the example's answer once more, and draws its steps."""
    inputs = prepare(processor, [example], FRAMES)
    output: Any = network.generate(**inputs, return_dict_in_generate=True)
    frames, _ = read_video(
        str(example.path), lambda video: sample_frame_indices(video.total_num_frames or 0, num_frames=FRAMES).tolist()
    )
    steps = [step.canvas[0].tolist() for step in output.trace]
    return draw_denoising(frames, example.question, steps, processor.tokenizer, network.config.mask_token_id, path)


__all__ = ["Demonstration", "Reply", "run_demo"]
