"""Where the time of one answer goes when the question is about a video file."""

import tempfile
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from gpu_session import WAYS, Session
from gpu_steps import time_steps

from vidlada_hf import VidLaDAVideoProcessor, read_video
from vidlada_hf.evaluation.decoding import DecodingSetup, EncodedBatch
from vidlada_hf.evaluation.measure import clock
from vidlada_hf.evaluation.random_model import build_random_model
from vidlada_hf.processing.video_processing_vidlada import sample_frame_indices

PICTURES = 30  # that differ; the clip shows them again and again
BITS_PER_SECOND = 32_000_000


def write_clip(path: Path, width: int, height: int, rate: int, seconds: int) -> None:
    """Noise over moving gradients, H.264, as fast as the encoder goes."""
    rng = np.random.default_rng(0)
    across = np.linspace(0, 180, width, dtype=np.uint8)[None]
    noise = rng.integers(0, 12, (height * 3 // 2, width), dtype=np.uint8)  # luma, and below it chroma at half the size
    pictures = [np.roll(across, 8 * i, axis=1) + np.roll(noise, 5 * i, axis=0) for i in range(PICTURES)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", BITS_PER_SECOND
        stream.thread_type = "AUTO"
        for i in range(rate * seconds):
            picture = av.VideoFrame.from_ndarray(pictures[i % PICTURES], format="yuv420p")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


class AnswerFromFile:
    """Reads, resizes, uploads and encodes a clip, and denoises one answer.

    Args:
        path: of the clip.
    """

    def __init__(self, session: Session, path: Path) -> None:
        self.session, self.path = session, path
        size = session.size
        # Only the tower and the projector of this model are used: their width is the text model's.
        text = size.text | {"num_hidden_layers": 1, "vocab_size": 64}
        self.encoder = build_random_model(text, session.device, session.dtype, size.grid, tower=size.tower)
        side = self.encoder.config.vision_config.image_size
        self.processor = VidLaDAVideoProcessor(size={"height": side, "width": side})

    @torch.no_grad()
    def run(self) -> dict[str, float]:
        """Seconds of each part, and "total"."""
        session, device, made = self.session, self.session.device, {}

        def timed(name: str, call: Any) -> float:
            return clock(lambda: made.__setitem__(name, call()), device)

        frames = session.size.frames
        seconds = {
            "reading": timed("clip", lambda: read_frames(self.path, frames)),
            "resizing": timed(
                "pixels", lambda: self.processor(made["clip"], do_sample_frames=False)["pixel_values_videos"]
            ),
            "upload": timed("uploaded", lambda: made["pixels"].to(device, session.dtype)),
            "tower": timed("features", lambda: self.encoder.get_video_features(made["uploaded"]).pooler_output),
        }
        batch = EncodedBatch(session.question.inputs, made["features"])
        steps = time_steps(session.runner(session.size.steps[-1], WAYS["captured"]), batch, DecodingSetup("mars"))
        seconds |= {f"denoising: {kind}": entry["seconds"] for kind, entry in steps["kinds"].items()}
        return seconds | {"total": sum(seconds.values())}


def read_frames(path: Path, count: int) -> np.ndarray:
    """uint8 RGB (count, height, width, 3), evenly spaced."""
    frames, _ = read_video(path, lambda clip: sample_frame_indices(clip.total_num_frames, num_frames=count).tolist())
    return frames


def measure_video_file(session: Session) -> None:
    """Results: one entry, seconds by part."""
    width, height, rate, seconds = session.size.clip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_clip(path, width, height, rate, seconds)
        session.record.data["video file"] = {
            "clip": f"{width} x {height}, {rate} frames a second, {seconds} s",
            "megabits a second": round(8e-6 * path.stat().st_size / seconds, 1),
            "frames": session.size.frames,
            "steps": session.size.steps[-1],
        }
        session.say(f"video file: {session.record.data['video file']}")
        session.time_in_turns("video file", {"answer": AnswerFromFile(session, path).run})


__all__ = ["measure_video_file", "write_clip"]
