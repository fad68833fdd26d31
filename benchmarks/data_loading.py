"""How many samples a second the data loader reads, against what training takes: is reading the bottleneck?

    python benchmarks/data_loading.py            # writes data_loading.json beside this file

Clips are real H.264 files of 720p, 30 s at 30 frames a second, encoded here; frames and sizes are those of the 8B model
(32 frames of 384 x 384). Loaders are measured alone, without training, in turn; medians. What the 8B takes is a bound
from its operations on a device of a given speed: nothing was trained.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import SiglipImageProcessor

from vidlada_hf import VidLaDAProcessor, VidLaDAVideoProcessor
from vidlada_hf.training.collator import DiffusionCollator
from vidlada_hf.training.llava import LlavaConversations
from vidlada_hf.training.moving_shapes.tiny import word_tokenizer
from vidlada_hf.training.videos import FrameReader, VideoRecords, with_sampling

FRAMES, ROUNDS = 32, 5
# Multiply-adds of a forward and a backward pass a row of the 8B, twice (add and multiply) and three times (backward).
FLOPS_PER_ROW = 6 * 8.0e9
ROWS = FRAMES * 210 + 256
DEVICE_FLOPS = 400e12  # bfloat16 of an H100 at 40 % use


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        loaders = make_loaders(Path(folder), options.clips)
        times: dict[str, list[float]] = {name: [] for name in loaders}
        for _ in range(ROUNDS):
            for name, loader in loaders.items():
                times[name].append(measure(loader))
    seconds = {name: statistics.median(values) / options.clips for name, values in times.items()}
    result = {
        "machine": {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
        "clip": "1280x720, 30 s, 30 fps, H.264; 32 frames sampled, resized to 384x384",
        "samples_per_second": {name: round(1 / value, 3) for name, value in seconds.items()},
        "training_8b_samples_per_second_at_most": round(DEVICE_FLOPS / (FLOPS_PER_ROW * ROWS), 3),
        "rounds": ROUNDS,
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def make_loaders(folder: Path, clips: int) -> dict[str, DataLoader]:
    """Loaders with as many workers as named, from files and from frames kept on disk."""
    records = []
    for number in range(clips):
        encode(folder / f"{number}.mp4", seed=number)
        turns = [{"from": "human", "value": "<image>\nwhat"}, {"from": "gpt", "value": "one"}]
        records.append({"video": f"{number}.mp4", "conversations": turns})
    (folder / "records.json").write_text(json.dumps(records))
    size = {"height": 384, "width": 384}
    processor = VidLaDAProcessor(
        image_processor=SiglipImageProcessor(size=size),
        tokenizer=word_tokenizer(),
        video_processor=VidLaDAVideoProcessor(size=size),
    )
    processor, _ = with_sampling(processor, {"num_frames": FRAMES})
    read = LlavaConversations(str(folder / "records.json"), str(folder))
    loaders = {}
    for name, cache in (("files", None), ("kept frames", folder / "cache")):
        data = VideoRecords(read, FrameReader(processor.video_processor, cache))
        for workers in (0, 2):
            ahead: dict[str, Any] = {"prefetch_factor": 2} if workers else {}
            loader = DataLoader(data, 1, collate_fn=DiffusionCollator(processor), num_workers=workers, **ahead)
            loaders[f"{name}, {workers} workers"] = loader
    measure(loaders["kept frames, 0 workers"])  # fills the folder
    return loaders


def measure(loader: DataLoader) -> float:
    """Seconds of one pass."""
    began = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - began


def encode(file: Path, seed: int, seconds: int = 30, rate: int = 30, width: int = 1280, height: int = 720) -> None:
    """A clip of moving noise, as hard to decode as a real one of that size."""
    rng = np.random.default_rng(seed)
    texture = np.kron(rng.integers(0, 255, (2 * height // 16, 2 * width // 16, 3)), np.ones((16, 16, 1))).astype(
        np.uint8
    )
    with av.open(str(file), "w") as container:
        stream: Any = container.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "26"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(seconds * rate):
            image = texture[i % height : i % height + height, 2 * i % width : 2 * i % width + width]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


if __name__ == "__main__":
    main()
