"""What seeking to the sampled frames saves against decoding a clip from its start.

    python benchmarks/video_reading.py [--frames 8] [--output benchmarks/video_reading.json]

Encodes a ten-minute H.264 clip (640 x 360, 25 frames a second, a key frame every 250, the encoder's default), then
reads the same frames in both ways in turn, five times, and checks that the pixels are equal.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import av
import numpy as np

from vidlada_hf.processing.video_file_vidlada import VideoFile
from vidlada_hf.processing.video_processing_vidlada import sample_frame_indices

MINUTES, FPS, WIDTH, HEIGHT, PAIRS = 10, 25, 640, 360, 5


def encode(path: Path) -> None:
    """A square that wanders over noise."""
    noise = np.random.default_rng(0).integers(0, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for i in range(MINUTES * 60 * FPS):
            frame = noise.copy()
            x, y = 3 * i % (WIDTH - 40), 2 * i % (HEIGHT - 40)
            frame[y : y + 40, x : x + 40] = (220, i % 256, 40)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def read_by_seeking(path: Path, indices: list[int]) -> tuple[np.ndarray, int, float]:
    """Frames, frames decoded, seconds."""
    begin = time.perf_counter()
    video = VideoFile(str(path))
    frames = video.read(indices)
    decoded = video.frames_decoded
    video.close()
    return frames, decoded, time.perf_counter() - begin


def read_from_the_start(path: Path, indices: list[int]) -> tuple[np.ndarray, int, float]:
    """The same by decoding everything up to the last sampled frame."""
    begin, wanted, kept = time.perf_counter(), set(indices), []
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for i, frame in enumerate(container.decode(video=0)):
            if i in wanted:
                kept.append(frame.to_ndarray(format="rgb24"))
            if i == indices[-1]:
                break
    return np.stack(kept), indices[-1] + 1, time.perf_counter() - begin


def main(arguments: list[str] | None = None) -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ten_minutes.mp4"
        encode(path)
        total = MINUTES * 60 * FPS
        indices = sample_frame_indices(total, FPS, num_frames=args.frames).tolist()
        seeking, whole = [], []
        for _ in range(PAIRS):
            frames, decoded, seconds = read_by_seeking(path, indices)
            expected, decoded_whole, seconds_whole = read_from_the_start(path, indices)
            assert np.array_equal(frames, expected)
            seeking.append(seconds)
            whole.append(seconds_whole)
    figures = {
        "frames in the clip": total,
        "frames sampled": args.frames,
        "frames decoded, seeking": decoded,
        "frames decoded, from the start": decoded_whole,
        "seconds, seeking (median)": round(statistics.median(seeking), 3),
        "seconds, from the start (median)": round(statistics.median(whole), 3),
        "ratio of seconds (median of pairs)": round(
            statistics.median(b / a for a, b in zip(seeking, whole, strict=True)), 1
        ),
    }
    for name, value in figures.items():
        print(f"{name:36s} {value}")
    args.output.write_text(json.dumps({"pyav": av.__version__, "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
