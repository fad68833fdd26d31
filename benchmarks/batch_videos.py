"""Videos a second of `vidlada batch`, beside one `vidlada ask` after the other.

    python benchmarks/batch_videos.py            # writes batch_videos.json beside this file

Two hundred short videos: copies of the embedded checkpoint's clip, each of which is read anew. Every way is timed as a
user runs it, as commands, with starting Python and loading the weights in it:

- "ask": `vidlada ask` for one video after the other, a process each (of the first videos alone: all take the same);
- "batch of 1": `vidlada batch` that answers one video at a time, so that only the start is shared;
- "batch": as it is, eight at a time, read ahead by two threads;
- "two processes": the same under torchrun.

Ways take turns; medians.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from vidlada_hf.evaluation.measure import describe_machine
from vidlada_hf.hub.locate import EMBEDDED_CHECKPOINT

QUESTION, FRAMES = "Which shape appears first?", 8
VIDLADA = Path(sys.executable).with_name("vidlada")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=200)
    parser.add_argument("--asked", type=int, default=5, help="videos of the way `ask`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="two videos, once: to see that it runs")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args(arguments)
    videos, asked, rounds = (2, 1, 1) if options.quick else (options.videos, options.asked, options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        clips = copy_clips(Path(folder) / "videos", videos)
        ways: dict[str, tuple[int, Callable[[], None]]] = {
            "ask": (asked, lambda: ask_each(clips[:asked])),
            "batch of 1": (videos, lambda: answer_all(clips, "--batch-size", "1")),
            "batch": (videos, lambda: answer_all(clips)),
            "two processes": (videos, lambda: answer_all(clips, launcher=TORCHRUN)),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, (_, run) in ways.items():
                began = time.perf_counter()
                run()
                seconds[name].append(round(time.perf_counter() - began, 3))
                print(f"{name}: {seconds[name][-1]:.1f} s", flush=True)
    result = {
        "machine": describe_machine(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        "threads_of_a_process": os.environ.get("OMP_NUM_THREADS", "torch's choice, under torchrun 1"),
        "model": "vidlada-tiny",
        "frames": FRAMES,
        "rounds": rounds,
        "ways": {name: summarize(count, seconds[name]) for name, (count, _) in ways.items()},
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["ways"], indent=1))


def summarize(videos: int, seconds: list[float]) -> dict[str, object]:
    """Figures of a way."""
    return {
        "videos": videos,
        "seconds": seconds,
        "videos_per_second": round(videos / statistics.median(seconds), 3),
    }


def copy_clips(folder: Path, count: int) -> list[Path]:
    """So many copies of the embedded clip."""
    folder.mkdir()
    clips = [folder / f"{number:04}.mp4" for number in range(count)]
    for clip in clips:
        shutil.copyfile(EMBEDDED_CHECKPOINT / "demo" / "clip.mp4", clip)
    return clips


def ask_each(clips: list[Path]) -> None:
    """One command after the other."""
    for clip in clips:
        run([VIDLADA, "ask", clip, QUESTION, "--frames", FRAMES])


def answer_all(clips: list[Path], *options: str, launcher: tuple[str, ...] = ()) -> None:
    """One command for all; every answer must be there."""
    folder = clips[0].parent
    with tempfile.TemporaryDirectory() as out:
        answers = Path(out) / "answers.jsonl"
        command = [VIDLADA, "batch", folder, "--question", QUESTION, "--frames", FRAMES, "--out", answers]
        run([*launcher, *command, *options])
        lines = [json.loads(line) for line in answers.read_text().splitlines()]
    assert len(lines) == len(clips) and all(line["answer"] for line in lines)


def run(command: list[object]) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True)


if __name__ == "__main__":
    main()
