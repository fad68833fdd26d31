"""The clip and the questions that are embedded with the checkpoint, for `vidlada demo`."""

from pathlib import Path

import numpy as np

from ..dataset import Example
from ..questions import Question, ask
from ..scenes.rendering import write_video
from ..scenes.sampling import sample_scene
from ..scenes.scene import Scene
from ..write_questions import write_questions

TYPES = ("color", "shape", "counting", "motion", "first", "last", "disappearance", "mover", "choice", "caption")
SIZE, CRF = 256, 30  # pixels; quality of libx264, where 9 kB look as the scene does
_SEED = 97114  # of a scene of three shapes whose caption, too, the embedded checkpoint has right: not all are


def write_demo(folder: Path) -> None:
    """Writes clip.mp4 and questions.jsonl into a folder."""
    scene, questions = draw_demo()
    clip = write_video(scene, folder / "clip.mp4", size=SIZE, crf=CRF)
    examples = [
        Example(None, clip, question.question(), question.answer(), question.type, question, scene)
        for question in questions
    ]
    write_questions((example.as_question() for example in examples), folder / "questions.jsonl")


def draw_demo() -> tuple[Scene, list[Question]]:
    """A scene of the test split with motion and arrivals, and a question of each of `TYPES`."""
    rng = np.random.default_rng(_SEED)
    while True:
        scene = sample_scene(rng, "test", "arrivals", 3)
        questions = [ask(scene, type, rng) for type in TYPES]
        if all(question is not None for question in questions):
            return scene, [question for question in questions if question is not None]


__all__ = ["draw_demo", "write_demo"]
