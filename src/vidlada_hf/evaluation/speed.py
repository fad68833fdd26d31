"""How long contenders take for one answer, counted and timed in turn. For models whose answers mean nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tqdm import tqdm

from .bench import count_costs, number
from .cost_model import Machine
from .counting import PeakMemory
from .decoding import DecodingRunner, DecodingSetup, Encoded, answer_partly
from .timing import Times, alternate, clock

SCALED = ("flops", "flops_planned", "floor_seconds", "steps", "tokens", "forwards")


class Run(Protocol):
    """Something that can be counted and timed."""

    def count(self) -> dict[str, Any]:
        """See `count_costs`; what is not known is left out."""

    def time(self) -> tuple[float, int | None]:
        """Seconds, and the most bytes in use (see `PeakMemory`)."""


@dataclass(frozen=True)
class TimedDecoding:
    """A contender that denoises one canvas.

    Args:
        machine: for the floor.
        limit: run only so many of the steps, and multiply. For strategies whose steps are all equal.
    """

    denoiser: DecodingRunner
    encoded: Encoded
    contender: DecodingSetup
    machine: Machine
    limit: int | None = None

    @property
    def factor(self) -> float:
        """What seconds and operations are multiplied by."""
        steps = sum(steps for _, steps in self.denoiser.config.blocks())
        return 1.0 if self.limit is None else steps / min(self.limit, steps)

    def count(self) -> dict[str, Any]:
        """See `Run`."""
        found = count_costs(self.denoiser, [self.encoded], self.contender, self.machine, self.limit)
        scaled = {key: found[key] * self.factor for key in SCALED if found[key] is not None}
        return found | scaled | {"steps_run": self.limit or int(found["steps"])}

    def time(self) -> tuple[float, int | None]:
        """See `Run`."""
        device = self.denoiser.model.device
        with PeakMemory(device) as peak:
            seconds = clock(lambda: answer_partly(self.denoiser, self.encoded, self.contender, self.limit), device)
        return seconds * self.factor, peak.bytes


def measure_runs(
    runs: Mapping[str, Run],
    reference: str,
    rounds: int,
    found: dict[str, Any],
    save: Callable[[], None],
    warm_up: bool = False,
) -> None:
    """Times all in turn and counts each once; what is in `found` already is not run again.

    Times come first: on a GPU that is lent for minutes, counting an answer takes ten times as long as giving it.

    Args:
        runs: by name; `reference` among them.
        found: name -> "counts", "seconds", "reference_seconds", "peak_bytes" and "summary"; filled.
        save: called after each piece of work.
        warm_up: run each once before the first round.
    """
    for name in runs:
        found.setdefault(name, {})
    times = {name: Times(*(found[name].get(key, []) for key in ("seconds", "reference_seconds"))) for name in runs}

    def timed(name: str) -> float:
        seconds, peak = runs[name].time()
        found[name]["peak_bytes"] = max(filter(None, (peak, found[name].get("peak_bytes"))), default=None)
        return seconds

    def keep() -> None:
        for name, time in times.items():
            found[name] |= {"seconds": time.seconds, "reference_seconds": time.reference}
            found[name]["summary"] = summarize(found[name], found[reference])
        save()

    if warm_up and any(len(time.seconds) < rounds for time in times.values()):
        for run in runs.values():
            run.time()
    alternate({name: lambda name=name: timed(name) for name in runs}, reference, rounds, times, keep)  # type: ignore[misc]
    for name, run in tqdm(runs.items(), desc="counting", unit="contender"):
        if "counts" not in found[name]:
            found[name]["counts"] = run.count()
            keep()


def summarize(entry: dict[str, Any], reference: dict[str, Any]) -> dict[str, Any]:
    """The figures of a run: "seconds" (median), "speedup", "tokens_per_second", "floor_seconds", "flops" and how many
    times less than the reference, bytes kept, live and at the peak. None: not known, or not yet."""
    counts, time = entry.get("counts", {}), Times(entry["seconds"], entry["reference_seconds"])
    flops, theirs = counts.get("flops"), reference.get("counts", {}).get("flops")
    seconds, tokens = time.median if time.seconds else None, counts.get("tokens")
    return {
        "seconds": seconds,
        "speedup": round(time.speedup, 3) if seconds else None,
        "tokens_per_second": round(tokens / seconds, 3) if seconds and tokens else None,
        "floor_seconds": counts.get("floor_seconds"),
        "flops": flops,
        "flops_planned": counts.get("flops_planned"),
        "flops_saving": round(theirs / flops, 3) if flops and theirs else None,
        "kept_bytes": counts.get("kept_bytes"),
        "live_bytes": counts.get("live_bytes"),
        "peak_bytes": entry.get("peak_bytes"),
    }


def speed_table(found: dict[str, Any]) -> str:
    """Markdown: a line a run."""
    lines = [
        "| | seconds | faster | tokens/s | floor, s | TFLOP | FLOPs saved | kept MB | live MB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, entry in found.items():
        s = entry["summary"]
        cells = [name, digits(s["seconds"]), number(s["speedup"], "{:.1f}x"), number(s["tokens_per_second"], "{:.1f}")]
        cells += [digits(s["floor_seconds"])]
        cells += [number(s["flops"], "{:.3g}", 1e12)]
        cells += [number(s["flops_saving"], "{:.1f}x")]
        cells += [number(s[key], "{:.0f}", 1e6) for key in ("kept_bytes", "live_bytes")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def digits(value: float | None) -> str:
    """Three of them, and no exponent; a dash for None."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


__all__ = ["TimedDecoding", "Run", "digits", "measure_runs", "speed_table"]
