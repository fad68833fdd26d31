"""Every cache strategy with every unmasking rule on one model and one set of questions, in one run.

Three passes, each of which goes on where it was interrupted: all contenders answer all questions; each is counted once
on some of them; and these are timed, contenders in turn.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .cost_model import Machine, StepCost, TextShape
from .counting import LiveBytes, PeakMemory, flop_counter
from .decoding import EXACT, DecodingRunner, DecodingSetup, Encoded, Watch, answer_partly
from .questions import are_right
from .statistics import compare_answers, compare_by_type
from .timing import Record, Times, alternate, clock, describe_machine, measure_machine


def run_bench(
    denoiser: DecodingRunner,
    items: Sequence[Any],
    contenders: Sequence[DecodingSetup],
    path: Path,
    model_name: str,
    rounds: int = 5,
    timed: int = 8,
    batch_size: int = 1,
) -> dict[str, Any]:
    """Measures, or finishes measuring, and writes a JSON file.

    Args:
        items: the questions, see `load_questions`.
        contenders: exact decoding is added if it is not among them.
        path: of the file. One that holds results of the same set-up is completed: what is in it is not run again.
        model_name: for the file.
        rounds: that each contender is timed in.
        timed: how many questions, the first ones, are counted and timed.
        batch_size: questions at a time.

    Returns:
        What the file holds: "setup", "machine" (operations and bytes a second that it reaches in large products and
        copies), "questions", and for each of the "contenders" its answers, counts, seconds and "summary" (see
        `summarize`).

    Raises:
        ValueError: impossible settings; a file with results of another set-up.
    """
    for name, value in (("rounds", rounds), ("timed", timed), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
    contenders = list({c.name: c for c in [EXACT, *contenders]}.values())
    setup = describe_setup(denoiser, model_name) | describe_questions(items, timed, batch_size)
    record = Record(path, setup)
    found = record.data.setdefault("contenders", {})
    for contender in contenders:
        found.setdefault(contender.name, asdict(contender) | {"ids": [], "texts": []})
    record.data.setdefault(
        "questions", [{"type": i.type, "question": i.question, "answers": list(i.answers)} for i in items]
    )
    if "machine" not in record.data:
        record.data["machine"] = asdict(measure_machine(denoiser.model.device, denoiser.model.dtype))

    collect_answers(denoiser, items, contenders, record, batch_size)
    measure_costs(denoiser, items[:timed], contenders, record, rounds, batch_size)
    for entry in found.values():
        if "seconds" in entry:
            entry["summary"] = summarize(entry, found[EXACT.name], items, min(timed, len(items)))
    record.save()
    return record.data


def describe_setup(denoiser: DecodingRunner, model_name: str) -> dict[str, Any]:
    """What results depend on, questions aside; a file of another set-up is not gone on with."""
    model, config = denoiser.model, denoiser.config
    return {
        "model": model_name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention": model.config.get_text_config()._attn_implementation,
        **describe_machine(model.device),
        "frames": denoiser.num_frames,
        "canvas": config.max_new_tokens,
        "block_length": config.block_length or min(32, config.max_new_tokens),
        "steps": sum(steps for _, steps in config.blocks()),
        "ending": denoiser.ending,
        "generation": {k: v for k, v in config.to_dict().items() if k not in ("cache_strategy", "cache_config")},
        "videos": "encoded once, before anything is timed or counted",
    }


def describe_questions(items: Sequence[Any], timed: int, batch_size: int) -> dict[str, Any]:
    """Which questions, and how they are asked."""
    asked = "\n".join(f"{item.video}\t{item.question}\t{item.answers}" for item in items)
    return {
        "questions": len(items),
        "questions_digest": hashlib.sha256(asked.encode()).hexdigest()[:16],
        "timed_questions": min(timed, len(items)),
        "batch_size": batch_size,
    }


def collect_answers(
    denoiser: DecodingRunner, items: Sequence[Any], contenders: Sequence[DecodingSetup], record: Record, batch_size: int
) -> None:
    """All contenders answer all questions, batch by batch; a batch's videos are encoded once.

    Writes "ids" (one text of numbers an answer) and "texts" of each contender in `record.data["contenders"]`.
    """
    found = record.data["contenders"]
    missing = sum(len(items) - len(found[contender.name]["ids"]) for contender in contenders)
    with tqdm(total=missing, desc="answers", unit="answer") as bar:
        for start in range(0, len(items), batch_size):
            end = min(start + batch_size, len(items))
            todo = [c for c in contenders if len(found[c.name]["ids"]) < end]
            if not todo:
                continue
            batch = items[start:end]
            encoded = denoiser.encode(batch)
            for contender in todo:
                bar.set_postfix_str(contender.name)
                ids = denoiser.take(denoiser.answer(encoded, contender))
                found[contender.name]["ids"][start:] = [" ".join(map(str, row)) for row in ids]
                found[contender.name]["texts"][start:] = denoiser.read(ids)
                bar.update(len(batch))
            record.save()


def measure_costs(
    denoiser: DecodingRunner,
    items: Sequence[Any],
    contenders: Sequence[DecodingSetup],
    record: Record,
    rounds: int,
    batch_size: int,
) -> None:
    """Counts each contender once, then times all in turn."""
    found = record.data["contenders"]
    if all(len(found[c.name].get("seconds", [])) >= rounds for c in contenders):
        return
    batches = [denoiser.encode(items[i : i + batch_size]) for i in range(0, len(items), batch_size)]
    machine = Machine(**record.data["machine"])
    for contender in tqdm([c for c in contenders if "counts" not in found[c.name]], desc="counting", unit="contender"):
        found[contender.name]["counts"] = count_costs(denoiser, batches, contender, machine)
        record.save()

    times = {
        c.name: Times(*(found[c.name].get(key, []) for key in ("seconds", "reference_seconds"))) for c in contenders
    }
    peaks = {c.name: found[c.name].get("peak_bytes") for c in contenders}

    def run(contender: DecodingSetup) -> float:
        with PeakMemory(denoiser.model.device) as peak:
            seconds = clock(lambda: [denoiser.answer(encoded, contender) for encoded in batches], denoiser.model.device)
        if peak.bytes is not None:
            peaks[contender.name] = max(peak.bytes, peaks[contender.name] or 0)
        return seconds

    def save() -> None:
        for name, time in times.items():
            found[name] |= {"seconds": time.seconds, "reference_seconds": time.reference, "peak_bytes": peaks[name]}
        record.save()

    alternate({c.name: lambda c=c: run(c) for c in contenders}, EXACT.name, rounds, times, save)  # type: ignore[misc]


def count_costs(
    denoiser: DecodingRunner,
    batches: Sequence[Encoded],
    contender: DecodingSetup,
    machine: Machine,
    limit: int | None = None,
) -> dict[str, Any]:
    """What a contender does on some questions, or in the first so many steps of each.

    Returns:
        "flops" counted and "flops_planned" by the cost model (None where it does not know the strategy),
        "floor_seconds" that the machine needs at least, "steps", "tokens" committed, "forwards", "kept_bytes" that the
        strategy holds at most, "live_bytes" of tensors at most (both of one batch).
    """
    model, flops, live = denoiser.model, 0, 0
    shape = TextShape.of(model.config.get_text_config())
    watches: list[Watch] = []
    planned: list[StepCost] | None = []

    def watch(strategy: Any) -> Any:
        watches.append(Watch(strategy))
        return watches[-1].see

    for encoded in batches:
        with LiveBytes() as bytes, flop_counter() as counter:
            answer_partly(denoiser, encoded, contender, limit, watch)
        flops, live, seen = flops + counter.get_total_flops(), max(live, bytes.peak), watches[-1]
        costs = [] if seen.layout is None else seen.costs(shape, model.dtype.itemsize)
        planned = None if planned is None or costs is None else [*planned, *costs]
    return {
        "flops": flops,
        "flops_planned": None if planned is None else sum(cost.flops for cost in planned),
        "floor_seconds": None if planned is None else sum(cost.floor(machine) for cost in planned),
        "steps": sum(len(seen.steps) for seen in watches),
        "tokens": sum(seen.tokens for seen in watches),
        "forwards": sum(seen.forwards for seen in watches),
        "kept_bytes": max(seen.kept for seen in watches),
        "live_bytes": live,
    }


def summarize(entry: dict[str, Any], exact: dict[str, Any], items: Sequence[Any], timed: int) -> dict[str, Any]:
    """The figures of a contender.

    Args:
        entry, exact: its part of the file, and exact decoding's.
        timed: how many questions were timed.

    Returns:
        "seconds" a question (median over the rounds), "speedup" over exact decoding (median of the rounds' ratios),
        "tokens_per_second", "tokens_per_forward", "flops" a question and "flops_planned", "flops_saving" (times less
        than exact decoding), "floor_seconds" a question, bytes kept, live and at the peak, "agreement" with exact
        decoding over all questions, and "accuracy" by question type, None where answers are not known.
    """
    counts, time = entry["counts"], Times(entry["seconds"], entry["reference_seconds"])
    own, theirs = ([list(map(int, ids.split())) for ids in part["ids"]] for part in (entry, exact))
    right, exact_right = (are_right(items, part["texts"]) for part in (entry, exact))
    known = right is not None and exact_right is not None
    each = {
        name: None if counts[name] is None else counts[name] / timed
        for name in ("flops", "flops_planned", "floor_seconds")
    }
    return {
        "seconds": time.median / timed,
        "speedup": round(time.speedup, 3),
        "tokens_per_second": round(counts["tokens"] / time.median, 3),
        "tokens_per_forward": round(counts["tokens"] / max(counts["forwards"], 1), 3),
        **each,
        "flops_saving": round(exact["counts"]["flops"] / counts["flops"], 3),
        "kept_bytes": counts["kept_bytes"],
        "live_bytes": counts["live_bytes"],
        "peak_bytes": entry["peak_bytes"],
        "agreement": asdict(compare_answers(own, theirs)),
        "accuracy": compare_by_type([i.type for i in items], right, exact_right) if known else None,  # type: ignore[arg-type]
    }


def table(data: dict[str, Any]) -> str:
    """Markdown: a line a contender."""
    rows = [(name, entry["summary"]) for name, entry in data["contenders"].items() if "summary" in entry]
    known = any(summary["accuracy"] for _, summary in rows)
    head = ["contender", "s", "floor s", "faster", "tokens/s", "tokens/forward", "GFLOP", "planned", "FLOPs saved"]
    head += ["kept MB", "live MB", "peak MB", "same tokens", "same answers"]
    head += ["right", "95 %", "lost/gained", "p", "worst type, points"] if known else []
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for name, s in rows:
        cells = [name, f"{s['seconds']:.3g}", number(s["floor_seconds"], "{:.2g}"), f"{s['speedup']:.2f}x"]
        cells += [f"{s['tokens_per_second']:.1f}", f"{s['tokens_per_forward']:.2f}", number(s["flops"], "{:.4g}", 1e9)]
        cells += [number(s["flops_planned"], "{:.4g}", 1e9), f"{s['flops_saving']:.2f}x"]
        cells += [number(s[key], "{:.1f}", 1e6) for key in ("kept_bytes", "live_bytes", "peak_bytes")]
        cells += [f"{100 * s['agreement'][key]:.1f} %" for key in ("tokens", "answers")]
        if known and s["accuracy"]:
            of = s["accuracy"]["all"]
            cells += [f"{100 * of['accuracy']:.1f} %", f"{100 * of['low']:.1f}-{100 * of['high']:.1f}"]
            worst = min(s["accuracy"], key=lambda type: s["accuracy"][type]["difference"])
            cells += [f"{of['lost']}/{of['gained']}", f"{of['p']:.2g}"]
            cells += [f"{worst} {s['accuracy'][worst]['difference']:+.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def number(value: float | None, form: str, unit: float = 1) -> str:
    """A number in some unit, a dash for None."""
    return "-" if value is None else form.format(value / unit)


__all__ = ["collect_answers", "count_costs", "describe_setup", "number", "run_bench", "summarize", "table"]
