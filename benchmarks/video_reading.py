"""What reading videos costs: seeking, from a file to the model's tensor, and long recordings.

    python benchmarks/video_reading.py [--rounds 5] [--hours 1 6] [--output benchmarks/video_reading.json]

- **Seeking**: 8 frames of a ten-minute clip (640 x 360, 25 frames a second, a key frame every 250), against decoding it
  from its start; the pixels are equal.
- **To the tensor**: 32 frames of a minute of 1080p, read as before (every frame held at its own size, then resized),
  as now (the same values), and with `resize="fast"`, in turn.
- **Small**: 8 frames of five seconds of 360p as MP4, WebM, Matroska and GIF, as before and as now, in turn.
- **Long**: 64 frames of recordings of some hours, each checked; memory is the peak over an idle process's, the
  frames (0.7 MB each) included.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from reading_clips import encode, panning_camera, pixels_as_before, repeat, wandering_square

from vidlada_hf import EMBEDDED_CHECKPOINT, VidLaDAVideoProcessor, read_video
from vidlada_hf.evaluation.decoding import DecodingRunner, answer_questions
from vidlada_hf.evaluation.questions import load_questions
from vidlada_hf.processing.frame_reading_vidlada import read_frames
from vidlada_hf.processing.video_file_vidlada import VideoFile
from vidlada_hf.processing.video_processing_vidlada import sample_frame_indices

MINUTES, FPS, FRAMES, LONG_FRAMES = 10, 25, 32, 64
SMALL = {"mp4": "libx264", "webm": "libvpx-vp9", "mkv": "mpeg4", "gif": "gif"}  # suffix -> encoder


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and seconds."""
    begin = time.perf_counter()
    return call(), time.perf_counter() - begin


def read_by_seeking(path: Path, indices: list[int]) -> tuple[np.ndarray, int]:
    """Frames, and how many were decoded."""
    video = VideoFile(str(path))
    frames, _ = read_frames(video, indices)
    decoded = video.frames_decoded
    video.close()
    return frames, decoded


def read_from_the_start(path: Path, indices: list[int]) -> np.ndarray:
    """The same by decoding everything up to the last sampled frame."""
    wanted, kept = set(indices), []
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for i, frame in enumerate(container.decode(video=0)):
            if i in wanted:
                kept.append(frame.to_ndarray(format="rgb24"))
            if i == indices[-1]:
                break
    return np.stack(kept)


def measure_seeking(path: Path, count: int, rounds: int) -> dict[str, float]:
    """Seeking against decoding from the start."""
    total = MINUTES * 60 * FPS
    indices = sample_frame_indices(total, FPS, num_frames=count).tolist()
    seeking, whole = [], []
    for _ in range(rounds):
        (frames, decoded), seconds = timed(lambda: read_by_seeking(path, indices))
        expected, seconds_whole = timed(lambda: read_from_the_start(path, indices))
        assert np.array_equal(frames, expected)
        seeking.append(seconds)
        whole.append(seconds_whole)
    return {
        "frames in the clip": total,
        "frames sampled": count,
        "frames decoded, seeking": decoded,
        "frames decoded, from the start": indices[-1] + 1,
        "seconds, seeking (median)": round(statistics.median(seeking), 3),
        "seconds, from the start (median)": round(statistics.median(whole), 3),
        "ratio of seconds (median of pairs)": round(
            statistics.median(b / a for a, b in zip(seeking, whole, strict=True)), 1
        ),
    }


def only_decode(path: Path, indices: list[int]) -> None:
    """What the frames cost before any is converted: those that they refer to are decoded, and they themselves."""
    with closing(VideoFile(str(path))) as video:
        for _ in video.frames(indices):
            pass


def measure_tensor(path: Path, rounds: int) -> dict[str, float]:
    """From a file to the tensor that the model takes: as before, as now, and resized by FFmpeg."""
    processor = VidLaDAVideoProcessor(num_frames=FRAMES)
    with av.open(str(path)) as container:
        total = container.streams.video[0].frames
    indices = sample_frame_indices(total, num_frames=FRAMES).tolist()
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "before": lambda: pixels_as_before(path, indices, processor),
        "now": lambda: processor(path)["pixel_values_videos"],
        "fast": lambda: processor(path, resize="fast")["pixel_values_videos"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}  # which tells more on a machine that is shared
    cpu["decoding alone"] = []
    for _ in range(rounds):
        made = {}
        begin = time.process_time()
        only_decode(path, indices)
        cpu["decoding alone"].append(time.process_time() - begin)
        for name, way in ways.items():
            begin = time.process_time()
            made[name], took = timed(way)
            seconds[name].append(took)
            cpu[name].append(time.process_time() - begin)
        assert torch.equal(made["before"], made["now"])
    levels = (made["fast"] - made["now"]).abs() * 127.5
    figures: dict[str, float] = {f"seconds, {name}": round(statistics.median(s), 2) for name, s in seconds.items()}
    figures |= {f"CPU seconds, {name}": round(statistics.median(s), 2) for name, s in cpu.items()}
    for name in ("now", "fast"):
        pairs = zip(seconds["before"], seconds[name], strict=True)
        figures[f"share of before, {name}"] = round(statistics.median(b / a for a, b in pairs), 2)
    return figures | {
        "fast: mean difference of 255 levels": round(float(levels.mean()), 2),
        "fast: largest difference of 255 levels": round(float(levels.max())),
    }


def measure_small(folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Ordinary files, as before and as now: milliseconds and CPU milliseconds of each, and the share of before."""
    processor, results = VidLaDAVideoProcessor(num_frames=8), {}
    for name, codec in SMALL.items():
        path = folder / f"small.{name}"
        encode(path, wandering_square(5 * FPS, 640, 360), FPS, codec=codec)
        with closing(VideoFile(str(path))) as video:
            indices = sample_frame_indices(video.metadata.total_num_frames, num_frames=8).tolist()
        ways = {
            "before": lambda path=path, indices=indices: pixels_as_before(path, indices, processor),
            "now": lambda path=path: processor(path)["pixel_values_videos"],
        }
        assert torch.equal(*(way() for way in ways.values()))  # which warms up
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        cpu: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(4 * rounds):
            for way, read in ways.items():
                begin = time.process_time()
                seconds[way].append(timed(read)[1])
                cpu[way].append(time.process_time() - begin)
        pairs = list(zip(seconds["before"], seconds["now"], strict=True))
        results[name] = {
            **{f"ms, {way}": round(1000 * statistics.median(all_), 1) for way, all_ in seconds.items()},
            **{f"CPU ms, {way}": round(1000 * statistics.median(all_), 1) for way, all_ in cpu.items()},
            "share of before": round(statistics.median(now / before for before, now in pairs), 2),
        }
    return results


def compare_answers() -> dict[str, int]:
    """How many answers of the embedded checkpoint about its clip stay the same with `resize="fast"`."""
    questions, answers = load_questions(), {}
    for way in ("exact", "fast"):
        runner = DecodingRunner.from_pretrained(str(EMBEDDED_CHECKPOINT), 8)
        runner.processor.video_processor.resize = way
        batches = answer_questions(runner.model, runner.processor, questions, 8)
        answers[way] = [text for batch in batches for text in batch]
    return {
        "fast: questions": len(questions),
        "fast: same answers": sum(a == b for a, b in zip(answers["exact"], answers["fast"], strict=True)),
    }


def resident_megabytes() -> float:
    """What this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def read_long(path: Path, start: Path) -> None:
    """In a process of its own: prints seconds, megabytes over idle, and whether the frames are the right ones."""
    read_video(start, lambda _: [0])
    idle = resident_megabytes()

    def choose(video: Any) -> np.ndarray:
        return sample_frame_indices(video.total_num_frames, num_frames=LONG_FRAMES)

    (frames, metadata), seconds = timed(lambda: read_video(path, choose))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000 - idle
    with av.open(str(start)) as container:
        total = container.streams.video[0].frames
    order = [index % total for index in metadata.frames_indices]
    right = int((frames == read_video(start, lambda _: order)[0]).all(axis=(1, 2, 3)).sum())
    print(json.dumps({"seconds": round(seconds, 1), "MB over idle": round(peak), "right frames": right}))


def measure_long(start: Path, folder: Path, hours: list[int]) -> dict[str, dict[str, float]]:
    """Recordings that repeat the clip `start`."""
    results = {}
    for count in hours:
        path = repeat(start, folder / f"{count}.mp4", count * 60 // MINUTES)
        command = [sys.executable, __file__, "--read-long", str(path), str(start)]
        results[f"{count} h"] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        path.unlink()
    return results


def main(arguments: list[str] | None = None) -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=8, help="of the ten-minute clip")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hours", type=int, nargs="*", default=[1, 6])
    parser.add_argument("--small", action="store_true", help="small files only, and write nothing")
    parser.add_argument("--clips", type=Path, help="a folder that keeps the clips, to be used again")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--read-long", type=Path, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.read_long:
        return read_long(*args.read_long)
    with tempfile.TemporaryDirectory() as name:
        folder = args.clips or Path(name)
        ten, minute = folder / "ten.mp4", folder / "minute.mp4"
        if not ten.exists() and not args.small:
            encode(ten, wandering_square(MINUTES * 60 * FPS, 640, 360), FPS)
        if not minute.exists() and not args.small:
            encode(minute, panning_camera(60 * 30, 1920, 1080), 30, preset="veryfast")
        small = measure_small(Path(name), args.rounds)
        print(small, flush=True)
        if args.small:
            return
        figures = measure_seeking(ten, args.frames, args.rounds)
        print(figures, flush=True)
        long = measure_long(ten, folder, args.hours)
        print(long, flush=True)
        tensor = {"megabits a second": round(8e-6 * minute.stat().st_size / 60, 1)}
        tensor |= measure_tensor(minute, args.rounds) | compare_answers()
        print(tensor, flush=True)
    data = {"pyav": av.__version__, "cores": os.cpu_count(), "figures": figures, "tensor": tensor, "long": long}
    data["small"] = small
    args.output.write_text(json.dumps(data, indent=2) + "\n")


if __name__ == "__main__":
    main()
