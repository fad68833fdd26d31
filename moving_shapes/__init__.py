"""Short videos of moving shapes, with questions whose answers are known. README.md beside this file describes them."""

from .dataset import Example, MovingShapes
from .questions import BENCHMARK_TYPES, CROSS_FRAME_TYPES, QUESTION_TYPES, TEMPORAL_TYPES, Question, ask
from .scenes.rendering import render, write_video
from .scenes.sampling import sample_scene
from .scenes.scene import Scene, frame_times
from .scoring import count_facts, is_right
from .vocabulary import VOCABULARY, words

__all__ = [
    "BENCHMARK_TYPES",
    "CROSS_FRAME_TYPES",
    "QUESTION_TYPES",
    "TEMPORAL_TYPES",
    "VOCABULARY",
    "Example",
    "MovingShapes",
    "Question",
    "Scene",
    "ask",
    "count_facts",
    "frame_times",
    "is_right",
    "render",
    "sample_scene",
    "words",
    "write_video",
]
