"""Timing several contenders fairly: in turn, round by round, each beside the same reference."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from .cost_model import Machine


@dataclass
class Times:
    """Seconds of a contender, and of the reference in the same rounds."""

    seconds: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    @property
    def speedup(self) -> float:
        """How many times as fast as the reference: the median over rounds of the ratio within a round."""
        return statistics.median(theirs / mine for mine, theirs in zip(self.seconds, self.reference, strict=True))


def alternate(
    contenders: Mapping[str, Callable[[], float]],
    reference: str,
    rounds: int,
    done: dict[str, Times],
    save: Callable[[], None] = lambda: None,
    description: str = "rounds",
) -> None:
    """Times all contenders in turn until each has been timed in so many rounds.

    What a machine does besides, or how warm it is, then meets all alike. Contenders that have all their rounds are left
    out; those that come later are timed beside the reference again.

    Args:
        contenders: name -> a call that does the work once and returns its seconds.
        reference: one of the names.
        done: name -> the rounds so far; filled.
        save: called after each round. A round that was interrupted is timed anew.
    """
    for name in contenders:
        done.setdefault(name, Times())
    missing = {name: max(rounds - len(done[name].seconds), 0) for name in contenders}
    with tqdm(total=sum(missing.values()), desc=description, unit="run") as bar:
        for round in range(max(missing.values(), default=0)):
            todo = [name for name in contenders if missing[name] > round]
            base = contenders[reference]()
            found = {name: base if name == reference else _step(contenders[name], bar, name) for name in todo}
            bar.update(reference in todo)
            for name, seconds in found.items():
                done[name].seconds.append(round_seconds(seconds))
                done[name].reference.append(round_seconds(base))
            save()


def _step(run: Callable[[], float], bar: tqdm, name: str) -> float:
    bar.set_postfix_str(name)
    seconds = run()
    bar.update()
    return seconds


def round_seconds(seconds: float) -> float:
    """To a hundred thousandth of itself, as more digits are noise."""
    return float(f"{seconds:.5g}")


def clock(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds that a call takes, work left on a GPU included."""
    wait_for(device)
    began = time.perf_counter()
    run()
    wait_for(device)
    return time.perf_counter() - began


def wait_for(device: torch.device) -> None:
    """Until a GPU has done what it was given."""
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
    """What the figures of a run depend on: for its JSON."""
    import transformers

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": name,
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "cores": os.cpu_count(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


class Record:
    """A JSON file of results that an interrupted run goes on with.

    Args:
        path: the file. Its folder is made.
        setup: what the results depend on, plain values.

    Attributes:
        data: what the file holds; changed in place, then `save`d.

    Raises:
        ValueError: the file's results came from another set-up; the message says where they differ.
    """

    def __init__(self, path: Path, setup: dict[str, Any]) -> None:
        self.path = path
        self.data: dict[str, Any] = {"setup": json.loads(json.dumps(setup))}
        if not path.exists():
            return
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            there = stored["setup"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no file of results: pass another one, or delete it.") from error
        for name, value in self.data["setup"].items():
            if there.get(name) != value:
                raise ValueError(
                    f"{path} was measured with `{name}` {there.get(name)!r}, and now it is {value!r}: pass another "
                    "file, or delete this one."
                )
        self.data = stored

    def save(self) -> None:
        """Writes the file anew; it is never half there."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(self.path.name + ".partial")
        partial.write_text(json.dumps(self.data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        partial.replace(self.path)


__all__ = [
    "Record",
    "Times",
    "alternate",
    "clock",
    "describe_machine",
    "measure_machine",
    "wait_for",
]
