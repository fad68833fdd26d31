"""How many samples a second the data loader reads, against what training takes: is reading the bottleneck?

    python benchmarks/data_loading.py            # writes data_loading.json beside this file

Clips are real H.264 files of 720p, 30 s at 30 frames a second, encoded here, of which 32 frames are sampled.

- "reading": loaders alone, without training, at the sizes of the 8B model (384 x 384). Beside it stands what the 8B
  takes, a bound from its operations on a device of a given speed: it was not trained.
- "training": the embedded checkpoint (64 x 64) trained by `vidlada train`'s own trainer, on the same cores, with the
  frames in memory, which is training alone, and with each loader.

All are run in turn; medians.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import SiglipImageProcessor, TrainingArguments

from vidlada_hf import VidLaDAForConditionalGeneration, VidLaDAProcessor, VidLaDAVideoProcessor
from vidlada_hf.hub.locate import EMBEDDED_CHECKPOINT
from vidlada_hf.training.conversation_task import ConversationTask
from vidlada_hf.training.data.collator import DiffusionCollator
from vidlada_hf.training.data.llava import LlavaConversations
from vidlada_hf.training.data.video_dataset import FrameReader, VideoRecords, with_frame_options
from vidlada_hf.training.optimizer import OptimizerOptions
from vidlada_hf.training.trainer import DiffusionTrainer

FRAMES, WORKERS = 32, (0, 2)
# Multiply-adds of a forward and a backward pass a token of the 8B, twice (add and multiply) and three times (backward).
FLOPS_PER_TOKEN = 6 * 8.0e9
TOKENS = FRAMES * 210 + 256
DEVICE_FLOPS = 400e12  # bfloat16 of an H100 at 40 % use


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--quick", action="store_true", help="two clips of a second, once: to see that it runs")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args(arguments)
    clips, seconds, rounds = (2, 1, 1) if options.quick else (options.clips, 30, 3)
    with tempfile.TemporaryDirectory() as folder:
        records = write_records(Path(folder), clips, seconds)
        runs = {"reading": reading_runs(records), "training": training_runs(records)}
        times: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in runs[kind]} for kind in runs}
        for _ in range(rounds):
            for kind, named in runs.items():
                for name, run in named.items():
                    times[kind][name].append(run())
    result = {
        "machine": {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
        "clip": f"1280x720, {seconds} s, 30 fps, H.264; 32 frames; resized to 384x384 (reading), 64x64 (training)",
        "samples_per_second": {
            kind: {name: round(clips / statistics.median(taken), 3) for name, taken in named.items()}
            for kind, named in times.items()
        },
        "training_8b_samples_per_second_at_most": round(DEVICE_FLOPS / (FLOPS_PER_TOKEN * TOKENS), 3),
        "rounds": rounds,
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def write_records(folder: Path, clips: int, seconds: int) -> Path:
    """Clips, and records about them."""
    records = []
    for number in range(clips):
        encode(folder / f"{number}.mp4", number, seconds)
        turns = [{"from": "human", "value": "<image>\nwhat"}, {"from": "gpt", "value": "one"}]
        records.append({"video": f"{number}.mp4", "conversations": turns})
    (folder / "records.json").write_text(json.dumps(records))
    return folder / "records.json"


def datasets(records: Path, processor: Any, kept: str) -> dict[str, VideoRecords]:
    """From files, and from frames kept on disk in a folder of that name, which is filled. The collator encodes them."""
    read, videos = LlavaConversations(str(records), str(records.parent)), processor.video_processor
    files = VideoRecords(read, FrameReader(videos), encode=dict)
    cached = VideoRecords(read, FrameReader(videos, records.parent / kept), encode=dict)
    for _ in cached:
        pass
    return {"files": files, "kept frames": cached}


def reading_runs(records: Path) -> dict[str, Callable[[], float]]:
    """Passes over the loaders, each in seconds."""
    size = {"height": 384, "width": 384}
    processor = VidLaDAProcessor(
        image_processor=SiglipImageProcessor(size=size),
        tokenizer=VidLaDAProcessor.from_pretrained(EMBEDDED_CHECKPOINT).tokenizer,
        video_processor=VidLaDAVideoProcessor(size=size),
    )
    collator = DiffusionCollator(with_frame_options(processor, {"num_frames": FRAMES})[0])

    def read(data: VideoRecords, workers: int) -> float:
        ahead: dict[str, Any] = {"prefetch_factor": 2} if workers else {}
        loader = DataLoader(data, 1, collate_fn=collator, num_workers=workers, **ahead)
        began = time.perf_counter()
        for _ in loader:
            pass
        return time.perf_counter() - began

    loaded = datasets(records, collator.processor, "large")
    return {f"{name}, {n} workers": partial(read, data, n) for name, data in loaded.items() for n in WORKERS}


def training_runs(records: Path) -> dict[str, Callable[[], float]]:
    """Epochs of the embedded checkpoint, each in seconds."""
    model, processor = (
        kind.from_pretrained(EMBEDDED_CHECKPOINT) for kind in (VidLaDAForConditionalGeneration, VidLaDAProcessor)
    )
    data = {"source": "llava", "path": str(records), "video_folder": str(records.parent)}
    task = ConversationTask(model, processor, data=data, processor_options={"num_frames": FRAMES})

    def train(examples: Any, workers: int) -> float:
        settings: dict[str, Any] = {
            "dataloader_num_workers": workers,
            "dataloader_prefetch_factor": 2 if workers else None,
        }
        arguments = TrainingArguments(
            str(records.parent / "run"),
            num_train_epochs=1,
            per_device_train_batch_size=1,
            save_strategy="no",
            remove_unused_columns=False,
            disable_tqdm=True,
            report_to=[],
            **settings,
        )
        rates = OptimizerOptions(text=1e-6, projector=1e-6, tower=1e-6)
        trainer = DiffusionTrainer(
            task, arguments, train_dataset=examples, data_collator=task.collate, optimizer_options=rates
        )
        began = time.perf_counter()
        trainer.train()
        return time.perf_counter() - began

    loaded = datasets(records, task.processor, "small")
    alone = {"alone, frames in memory": partial(train, list(loaded["kept frames"]), 0)}
    return alone | {f"{name}, {n} workers": partial(train, data, n) for name, data in loaded.items() for n in WORKERS}


def encode(file: Path, seed: int, seconds: int, rate: int = 30, width: int = 1280, height: int = 720) -> None:
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
