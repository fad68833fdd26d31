"""How long each kind of denoising step takes: what it recomputes says which kind it is."""

import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from vidlada_hf import DenoisingCache, DenoisingStep, StepOutput
from vidlada_hf.evaluation.decoding import DecodingRunner, DecodingSetup, EncodedBatch
from vidlada_hf.evaluation.measure import synchronize
from vidlada_hf.evaluation.memory import count_kept_bytes


class StepClock:
    """A `step_callback` that waits for the device after each step, and notes the seconds since the step before.

    Attributes:
        steps, seconds: of each step, the first since `start`.
        kept_bytes: the most that the strategy held after a step; counted while the clock stands.
    """

    def __init__(self, cache: DenoisingCache, device: torch.device) -> None:
        self.cache, self.device = cache, device
        self.steps: list[DenoisingStep] = []
        self.seconds: list[float] = []
        self.kept_bytes = 0

    def start(self) -> None:
        """To be called right before `generate`."""
        synchronize(self.device)
        self._began = time.perf_counter()

    def __call__(self, output: StepOutput) -> None:
        synchronize(self.device)
        self.seconds.append(time.perf_counter() - self._began)
        self.steps.append(output.step)
        self.kept_bytes = max(self.kept_bytes, count_kept_bytes(self.cache))
        self._began = time.perf_counter()


def kinds_of_steps(cache: DenoisingCache, steps: Sequence[DenoisingStep], layers: int) -> list[str]:
    """What each step is, by what the strategy's schedule refreshes in it besides the block.

    Args:
        layers: of the text model.
    """
    schedule = cache.schedule(steps)
    assert schedule is not None, "the strategy decides as it goes"
    kinds = []
    for step, visual, text in zip(steps, schedule["visual"].tolist(), schedule["text"].tolist(), strict=True):
        if step.index == 0:
            kinds.append("first step")
        elif any(visual):  # the deepest groups of layers
            kinds.append(f"visual refresh, {layers - visual.index(True) * layers // len(visual)} layers")
        elif any(text):
            kinds.append("text refresh")
        elif step.step_in_block == 0:
            kinds.append("first of a block")  # the block before is computed along with it
        else:
            kinds.append("quiet step")
    return kinds


def time_steps(runner: DecodingRunner, batch: EncodedBatch, setup: DecodingSetup) -> dict[str, Any]:
    """Denoises one answer, and gives for each kind of step how many there were, the median milliseconds of one and the
    seconds of all; and the bytes that the strategy kept."""
    cache, rule = setup.build()
    clock = StepClock(cache, runner.model.device)
    clock.start()
    runner.generate(batch, cache, rule, clock)
    seconds = defaultdict(list)
    for kind, one in zip(
        kinds_of_steps(cache, clock.steps, runner.model.config.get_text_config().num_hidden_layers),
        clock.seconds,
        strict=True,
    ):
        seconds[kind].append(one)
    kinds = {
        kind: {"steps": len(each), "milliseconds": 1e3 * statistics.median(each), "seconds": sum(each)}
        for kind, each in seconds.items()
    }
    return {"kinds": kinds, "kept_bytes": clock.kept_bytes}


__all__ = ["StepClock", "kinds_of_steps", "time_steps"]
