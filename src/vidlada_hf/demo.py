"""A demonstration that needs nothing but this package: it makes a video, finds or makes a checkpoint, and asks."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np

from .asking import Answer, ask, embedded_checkpoint
from .hub.random_checkpoint import build_random_checkpoint

QUESTION = "Which shape moves, and where does it go?"


@dataclass
class Demonstration:
    """What `run_demo` did.

    Args:
        answer: question, answer and the rest.
        has_random_weights: whether the answer is noise, because no checkpoint comes with the package.
        answer_file: where the answer is, as JSON.
    """

    answer: Answer
    has_random_weights: bool
    answer_file: Path


def run_demo(output_dir: Path) -> Demonstration:
    """Writes clip.mp4, answer.json and, if need be, a checkpoint with random weights into `output_dir`."""
    output_dir.mkdir(parents=True, exist_ok=True)
    clip = encode_moving_disc(output_dir / "clip.mp4")
    embedded = embedded_checkpoint()
    model = embedded or build_random_checkpoint(output_dir / "random-checkpoint")
    answer = ask(str(clip), QUESTION, str(model), num_frames=8, max_new_tokens=32)
    answer_file = output_dir / "answer.json"
    answer_file.write_text(json.dumps(asdict(answer), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return Demonstration(answer, embedded is None, answer_file)


def encode_moving_disc(path: Path, frames: int = 36, fps: int = 12, width: int = 160, height: int = 120) -> Path:
    """An H.264 video of a red disc that crosses a dark background from left to right."""
    rows, columns = np.mgrid[:height, :width]
    radius = height // 6
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            center = radius + (width - 2 * radius) * number / (frames - 1)
            image = np.full((height, width, 3), (20, 24, 48), np.uint8)
            image[(columns - center) ** 2 + (rows - height / 2) ** 2 < radius**2] = (220, 40, 40)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    return path
