"""What the parts of `mars_speed_gpu.py` share: sizes, the model, and timing in turns with results kept as they come."""

import statistics
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from vidlada_hf import VidLaDAForConditionalGeneration
from vidlada_hf.evaluation.cost_model import Machine, StepCost, TextShape, cost_of_steps
from vidlada_hf.evaluation.cost_model import Sizes as TokenCounts
from vidlada_hf.evaluation.decoding import DecodingRunner, DecodingSetup, EncodedBatch
from vidlada_hf.evaluation.random_model import TEXT_TOKENS, TINY_TEXT, encode_random_question
from vidlada_hf.evaluation.record import Record

# How `generate` is told to run: settings of it.
WAYS: dict[str, dict[str, Any]] = {"eager": {"cuda_graphs": False}, "captured": {}, "compiled": {"compile": True}}
COMPILED_ONLY = {"compile": True, "cuda_graphs": False}


@dataclass(frozen=True)
class Size:
    """How large everything is.

    Args:
        text: fields of the text model's config, by default the 8B's shape.
        frames, canvas, block: of an answer.
        grid: patches along the side of a frame.
        steps: the numbers of denoising steps, the largest first.
        batch: the larger batch size.
        exact_steps: how many of the steps are run where all are equal.
        mars: settings of MARS-Cache for the times of single steps.
        chunk_frames, chunk_layers: the videos, and the model, that chunk attention is measured on.
        clip: width, height, frames a second and seconds of the video file.
        tower: fields of the vision tower's config, by default SigLIP2 so400m's.
    """

    text: dict[str, Any] = field(default_factory=dict)
    frames: int = 32
    canvas: int = 128
    block: int = 32
    grid: int = 27
    steps: tuple[int, ...] = (128, 64, 32)
    batch: int = 8
    exact_steps: int = 16
    mars: dict[str, Any] = field(default_factory=dict)
    chunk_frames: tuple[int, ...] = (32, 64, 128, 256)
    chunk_layers: int = 8
    clip: tuple[int, int, int, int] = (1920, 1080, 30, 60)
    tower: dict[str, Any] = field(default_factory=lambda: {"image_size": 384})


QUICK = Size(
    text=TINY_TEXT,
    frames=4,
    canvas=8,
    block=4,
    grid=4,
    steps=(8, 4, 2),
    batch=2,
    exact_steps=2,
    mars={"visual_intervals": [8, 8, 4, 4], "text_intervals": [8, 4, 2, 2]},
    chunk_frames=(3, 6),
    chunk_layers=4,
    clip=(64, 48, 5, 2),
    tower={"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1},
)


@dataclass
class Session:
    """One run of the script.

    Args:
        model: of random weights; videos come as features.
        rounds: that everything is timed in.
        began: when it began, by `time.perf_counter`.
    """

    size: Size
    model: VidLaDAForConditionalGeneration
    rounds: int
    record: Record
    machine: Machine
    began: float

    @property
    def device(self) -> torch.device:
        """The model's."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """The model's."""
        return self.model.dtype

    @cached_property
    def question(self) -> EncodedBatch:
        """A prompt of 40 tokens of text and the random features of a video."""
        return encode_random_question(self.model, self.size.frames)

    def results(self, group: str) -> dict[str, Any]:
        """What the file holds of a group, to be changed in place."""
        return self.record.data["groups"].setdefault(group, {})

    def runner(self, steps: int, settings: dict[str, Any]) -> DecodingRunner:
        """Answers that no stop ends, in so many steps, with these settings. On a CPU nothing is compiled: that takes
        longer than all the rest, and is not what is measured."""
        lengths = {"max_new_tokens": self.size.canvas, "block_length": self.size.block, "max_denoising_steps": steps}
        settings = settings | ({} if self.device.type == "cuda" else {"compile": False})
        return DecodingRunner(self.model, None, self.size.frames, "canvas", lengths | settings)

    def planned_costs(self, runner: DecodingRunner, setup: DecodingSetup, batch: int) -> list[StepCost]:
        """What each step costs on paper; one token of a block after the other, so the plan is what runs."""
        frames = (self.model.model.tokens_per_frame,) * self.size.frames
        counts = TokenCounts(TEXT_TOKENS, frames, self.size.canvas)
        steps = counts.steps_in_sequence(runner.config.planned_steps())
        shape = TextShape.of(self.model.config.get_text_config())
        costs = cost_of_steps(setup.build()[0], shape, counts.layout().repeat(batch), steps, self.dtype.itemsize)
        assert costs is not None, f"the cost model does not know {setup.name}"
        return costs

    def say(self, text: str) -> None:
        """Prints a line with the seconds since the script began."""
        print(f"[{time.perf_counter() - self.began:4.0f} s] {text}", flush=True)

    def time_in_turns(self, group: str, runs: Mapping[str, Callable[[], dict[str, Any]]]) -> None:
        """Runs each once to warm up, then all in turn until each has been measured in so many rounds.

        What is measured already is not measured again. One that fails is left out; its "error" says why.

        Args:
            runs: by name, what to run; each gives its measurements by name, numbers. "rounds" in the results are
                filled with them, and "median" with the median of each.
        """
        results, failed = self.results(group), set()
        for number in range(-1, self.rounds):
            for name, run in runs.items():
                entry = results.setdefault(name, {})
                rounds = entry.setdefault("rounds", [])
                is_due = len(rounds) < self.rounds if number < 0 else len(rounds) <= number
                if name in failed or not is_due:
                    continue
                try:
                    measured = run()
                except Exception as error:  # the others of a lent machine's few minutes are not lost with it
                    traceback.print_exc()
                    failed.add(name)
                    entry["error"] = f"{type(error).__name__}: {str(error)[:300]}"
                    self.say(f"{group}: {name}: {entry['error']}")
                else:
                    entry.pop("error", None)
                    if number >= 0:
                        rounds.append(measured)
                        entry["median"] = medians(rounds)
                    what = "warm-up" if number < 0 else f"round {number + 1}"
                    self.say(f"{group}: {name}, {what}: {describe(measured)}")
                self.record.save()

    def is_finished(self, group: str) -> bool:
        """Whether all of a group was measured in so many rounds."""
        return self.record.data["finished"].get(group, 0) >= self.rounds

    def finish(self, group: str) -> None:
        """Notes that all of a group has been measured; not where something failed."""
        if not any("error" in entry for entry in self.results(group).values()):
            self.record.data["finished"][group] = self.rounds
        self.record.save()


def medians(rounds: list[dict[str, Any]]) -> dict[str, float]:
    """Name -> the median over the rounds."""
    return {name: statistics.median(measured[name] for measured in rounds) for name in rounds[0]}


def describe(measured: dict[str, float]) -> str:
    """Such as `seconds 1.234`."""
    return ", ".join(f"{name} {value:.4g}" for name, value in measured.items())


__all__ = ["COMPILED_ONLY", "QUICK", "WAYS", "Session", "Size", "describe", "medians"]
