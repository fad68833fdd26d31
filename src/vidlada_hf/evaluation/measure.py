"""What decoding costs: set-ups timed in turn, each beside the same reference, and each counted once.

Results are plain values by name, for JSON: "seconds" and "reference_seconds" (a list, one a round), "peak_bytes", and
"counts" (see `Measurable.count`). What is in them already is not measured again.
"""

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from tqdm import tqdm

from ..modeling.cache_vidlada import DenoisingCache, DenoisingStep, SequenceLayout
from ..modeling.observers_vidlada import StepOutput
from .cost_model import Machine, StepCost, TextShape, cost_of_steps
from .decoding import DecodingRunner, DecodingSetup, EncodedBatch
from .flops import flop_counter
from .memory import LiveBytes, PeakMemory, count_kept_bytes

SCALED = ("flops", "flops_planned", "floor_seconds", "steps", "tokens", "forwards")


class Measurable(Protocol):
    """Something that can be counted and timed."""

    def count(self) -> dict[str, Any]:
        """Any of: "flops" and "flops_planned" by the cost model, "floor_seconds" that the machine needs at least,
        "steps", "tokens" committed, "forwards", "kept_bytes" and "live_bytes" at most. What is not known is left out
        or None."""

    def time(self) -> tuple[float, int | None]:
        """Seconds, and the most bytes in use (see `PeakMemory`)."""


@dataclass(frozen=True)
class TimedDecoding:
    """A set-up that answers batches of questions.

    Args:
        machine: for the least time that the operations and bytes need.
        max_steps: run only so many steps of each batch, and multiply what is measured. For strategies whose steps are
            all equal.
    """

    runner: DecodingRunner
    batches: Sequence[EncodedBatch]
    setup: DecodingSetup
    machine: Machine
    max_steps: int | None = None

    @property
    def factor(self) -> float:
        """What seconds and operations are multiplied by."""
        steps = sum(block.steps for block in self.runner.config.blocks())
        return 1.0 if self.max_steps is None else steps / min(self.max_steps, steps)

    def count(self) -> dict[str, Any]:
        """Also "steps_run", which is not multiplied."""
        counts = count_decoding(self.runner, self.batches, self.setup, self.machine, self.max_steps)
        if self.max_steps is None:
            return counts | {"steps_run": counts["steps"]}
        scaled = {key: counts[key] * self.factor for key in SCALED if counts[key] is not None}
        return counts | scaled | {"steps_run": counts["steps"]}

    def time(self) -> tuple[float, int | None]:
        device = self.runner.model.device
        with PeakMemory(device) as peak:
            seconds = clock(self._run, device)
        return seconds * self.factor, peak.bytes

    def _run(self) -> None:
        for batch in self.batches:
            share = self.setup.share_video
            self.runner.generate(batch, *self.setup.build(), max_steps=self.max_steps, share_video=share)


@dataclass
class StepRecorder:
    """Notes what a `generate` does: a `step_callback`.

    Attributes:
        cache: the strategy that runs.
        layout: of the batch.
        steps: that ran.
        tokens: committed, see `StepOutput.num_tokens`.
        forwards: summed over the examples that could commit any.
        kept_bytes: the most that the strategy held after a step.
    """

    cache: DenoisingCache
    layout: SequenceLayout | None = None
    steps: list[DenoisingStep] = field(default_factory=list)
    tokens: int = 0
    forwards: int = 0
    kept_bytes: int = 0

    def __call__(self, output: StepOutput) -> None:
        self.layout = self.cache.layout
        self.steps.append(output.step)
        self.tokens = int(output.num_tokens.sum())
        self.forwards += sum(output.step.active[: len(output.committed)])
        self.kept_bytes = max(self.kept_bytes, count_kept_bytes(self.cache))

    def costs(self, shape: TextShape, element_size: int) -> list[StepCost] | None:
        """What the steps cost on paper, see `cost_of_steps`."""
        if self.layout is None:
            return []
        if self.layout.shared is not None:  # whose keys it does not count
            return None
        return cost_of_steps(self.cache, shape, self.layout, self.steps, element_size)


def count_decoding(
    runner: DecodingRunner,
    batches: Sequence[EncodedBatch],
    setup: DecodingSetup,
    machine: Machine,
    max_steps: int | None = None,
) -> dict[str, Any]:
    """What a set-up does to answer batches of questions, or in the first so many steps of each.

    Returns:
        All that `Measurable.count` lists. "flops_planned" and "floor_seconds" are None where the cost model does not
        know the strategy; "kept_bytes" and "live_bytes" are the most of one batch.
    """
    model, flops, live_bytes = runner.model, 0, 0
    shape = TextShape.of(model.config.get_text_config())
    recorders: list[StepRecorder] = []
    planned: list[StepCost] | None = []
    for batch in batches:
        cache, rule = setup.build()
        recorder = StepRecorder(cache)
        with LiveBytes() as live, flop_counter() as counter:
            runner.generate(batch, cache, rule, recorder, max_steps, setup.share_video)
        flops, live_bytes = flops + counter.get_total_flops(), max(live_bytes, live.peak)
        costs = recorder.costs(shape, model.dtype.itemsize)
        planned = None if planned is None or costs is None else planned + costs
        recorders.append(recorder)
    return {
        "flops": flops,
        "flops_planned": None if planned is None else sum(cost.flops for cost in planned),
        "floor_seconds": None if planned is None else sum(cost.floor(machine) for cost in planned),
        "steps": sum(len(recorder.steps) for recorder in recorders),
        "tokens": sum(recorder.tokens for recorder in recorders),
        "forwards": sum(recorder.forwards for recorder in recorders),
        "kept_bytes": max(recorder.kept_bytes for recorder in recorders),
        "live_bytes": live_bytes,
    }


def count_each(
    runs: Mapping[str, Measurable], results: dict[str, dict[str, Any]], save: Callable[[], None] = lambda: None
) -> None:
    """Fills "counts" of each run's results where they are missing; `save` is called after each run."""
    missing = [name for name in runs if "counts" not in results.setdefault(name, {})]
    for name in tqdm(missing, desc="counting", unit="set-up"):
        results[name]["counts"] = runs[name].count()
        save()


def time_in_turns(
    runs: Mapping[str, Measurable],
    reference: str,
    rounds: int,
    results: dict[str, dict[str, Any]],
    save: Callable[[], None] = lambda: None,
    warm_up: bool = False,
) -> None:
    """Times all runs in turn until each has been timed in so many rounds.

    What a machine does besides, or how warm it is, then affects all alike. Runs that have all their rounds are left
    out; those that come later are timed beside the reference again.

    Args:
        reference: one of the names.
        results: by name; "seconds", "reference_seconds" and "peak_bytes" are filled.
        save: called after each round. A round that was interrupted is timed anew.
        warm_up: run each once before the first round.
    """
    for name in runs:
        entry = results.setdefault(name, {})
        for key in ("seconds", "reference_seconds"):
            entry.setdefault(key, [])
    missing = {name: max(rounds - len(results[name]["seconds"]), 0) for name in runs}
    if warm_up and any(missing.values()):
        for run in runs.values():
            run.time()

    with tqdm(total=sum(missing.values()), desc="timing", unit="run") as bar:
        for number in range(max(missing.values(), default=0)):
            due = [name for name in runs if missing[name] > number]
            seconds: dict[str, float] = {}
            for name in dict.fromkeys([reference, *due]):
                bar.set_postfix_str(name)
                seconds[name] = _time_once(runs[name], results[name])
                bar.update(name in due)
            for name in due:
                results[name]["seconds"].append(seconds[name])
                results[name]["reference_seconds"].append(seconds[reference])
            save()


def _time_once(run: Measurable, entry: dict[str, Any]) -> float:
    seconds, peak = run.time()
    entry["peak_bytes"] = max(filter(None, (peak, entry.get("peak_bytes"))), default=None)
    return float(f"{seconds:.5g}")  # more digits are noise


def clock(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds that a call takes, work left on a GPU included."""
    synchronize(device)
    began = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - began


def synchronize(device: torch.device) -> None:
    """Waits until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_machine(device: torch.device, dtype: torch.dtype, quick: bool = False) -> Machine:
    """What the device reaches in a large matrix product and in a large copy, the best of five each."""
    side, length = (8192, 2**28) if device.type == "cuda" else (1024, 2**26)
    if quick:
        side, length = 128, 2**16
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    source, target = (torch.zeros(length, dtype=torch.uint8, device=device) for _ in range(2))
    product = min(clock(lambda: a @ b, device) for _ in range(5))
    copy = min(clock(lambda: target.copy_(source), device) for _ in range(5))
    return Machine(flops=2 * side**3 / product, bytes=2 * length / copy)


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Versions of torch and transformers, the device's name, threads (of a CPU) and cores."""
    import transformers

    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor_name(),
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "cores": os.cpu_count(),
    }


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


__all__ = [
    "Measurable",
    "StepRecorder",
    "TimedDecoding",
    "clock",
    "count_decoding",
    "count_each",
    "describe_machine",
    "measure_machine",
    "time_in_turns",
]
