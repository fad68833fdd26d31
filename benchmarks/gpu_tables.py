"""The tables of `mars_speed_gpu.json`."""

from collections.abc import Callable
from typing import Any

from vidlada_hf.evaluation.report import format_digits, format_number, markdown_table

Load = Callable[[str], Any]  # a JSON file's name without its suffix -> what it holds
FULL, TWIN = ("full recompute", "as it is"), ("twin", "prefill and captured decode")
LABELS = {"mars": "mars", "twin": "autoregressive Llama", "full recompute": "full recompute", "strategies": ""}


class NotMeasured(LookupError):
    """The file holds no such results yet."""


def group(data: dict[str, Any], name: str) -> dict[str, Any]:
    """The results of a group that were measured, by name.

    Raises:
        NotMeasured: there are none.
    """
    results = data.get("groups", {}).get(name, {})
    if not (measured := {key: entry for key, entry in results.items() if entry.get("rounds")}):
        raise NotMeasured(f"mars_speed_gpu.json holds nothing of {name!r}.")
    return measured


def tokens_per_second(data: dict[str, Any], name: str, key: str) -> float | None:
    """Of one set-up; None where it was not measured."""
    entry = data["groups"].get(name, {}).get(key, {})
    return entry["tokens"] / entry["median"]["seconds"] if "median" in entry else None


def ratio(speed: float | None, reference: float | None) -> float | None:
    """How many times as fast; None where one of them is not known."""
    return speed / reference if speed and reference else None


def answers(load: Load) -> str:
    """A line for each set-up that gives whole answers."""
    data = load("mars_speed_gpu")
    group(data, "mars")
    full, twin = (tokens_per_second(data, *reference) for reference in (FULL, TWIN))
    rows = []
    for name, label in LABELS.items():
        for key, entry in data["groups"].get(name, {}).items():
            if (speed := tokens_per_second(data, name, key)) is None:
                continue
            row = [f"{label}, {key}" if label else f"{key}, {entry['steps']} steps"]
            row += [format_digits(entry["median"]["seconds"]), format_digits(speed)]
            row += [format_digits(entry["floor_seconds"])]
            rows.append(row + [format_number(ratio(speed, reference), "{:.2f}x") for reference in (full, twin)])
    head = ["", "seconds", "tokens/s", "floor, s", "full recompute", "captured Llama"]
    about = f"{describe_card(data, 'mars')} The last two columns: times the tokens a second of these."
    return f"{markdown_table(head, rows)}\n\n{about} Full recompute: {data['setup']['full recompute']}."


def steps(load: Load) -> str:
    """Milliseconds of each kind of step of one answer."""
    data = load("mars_speed_gpu")
    ways = group(data, "steps")
    counts = next(iter(ways.values()))["steps"]
    rows = [
        [kind, str(count), *(format_digits(entry["median"].get(kind)) for entry in ways.values())]
        for kind, count in counts.items()
    ]
    sums = [sum(count * entry["median"][kind] for kind, count in counts.items()) for entry in ways.values()]
    rows.append(["all", str(sum(counts.values())), *map(format_digits, sums)])
    return markdown_table(["step", "in an answer", *(f"{way}, ms" for way in ways)], rows)


def chunk_attention(load: Load) -> str:
    """Milliseconds by frames, of a refresh and of a layer's attention, full and chunked."""
    data = load("mars_speed_gpu")
    results = group(data, "chunk attention")
    rows = []
    for frames in dict.fromkeys(name.split(", ")[0] for name in results):
        if not all(f"{frames}, {kind}" in results for kind in ("full", "chunked")):
            continue
        full, chunked = (results[f"{frames}, {kind}"]["median"] for kind in ("full", "chunked"))
        row = [frames]
        for part in ("refresh", "attention"):
            row += [format_digits(1e3 * full[part]), format_digits(1e3 * chunked[part])]
            row.append(f"{full[part] / chunked[part]:.2f}x")
        rows.append(row)
    layers = data["chunk attention"]["layers"]
    head = ["", f"{layers} layers, full, ms", "chunked, ms", "faster"]
    return markdown_table([*head, "attention of one, full, ms", "chunked, ms", "faster"], rows)


def video_file(load: Load) -> str:
    """Seconds of each part of an answer about a file."""
    data = load("mars_speed_gpu")
    parts = group(data, "video file")["answer"]["median"]
    about = data["video file"]
    rows = [[name, f"{seconds:.3f}", f"{100 * seconds / parts['total']:.0f} %"] for name, seconds in parts.items()]
    clip = f"{about['clip']}, {about['megabits a second']} Mbit/s; {about['frames']} frames, {about['steps']} steps."
    return f"{markdown_table(['', 'seconds', 'share'], rows)}\n\n{clip}"


def describe_card(data: dict[str, Any], name: str) -> str:
    """What a group was measured on, and how often."""
    setup = data["setup"]
    rounds = min(len(entry["rounds"]) for entry in group(data, name).values())
    timed = f"medians of {rounds} rounds" if rounds > 1 else "one round"
    about = f"{setup['device']}, {setup['dtype']}, torch {setup['torch']}"
    return f"{about}; {setup['frames']} frames, {setup['canvas']} tokens, {timed}."


def readme_row(load: Load) -> tuple[str, str, str, str]:
    """What an answer takes as `generate` runs by default, in the most and in the fewest steps: what, figure, script,
    JSON file's name."""
    data = load("mars_speed_gpu")
    if "groups" not in data:
        return first_look_row(load)
    keys = [key for key in group(data, "mars") if key.startswith("captured") and "batch" not in key]
    most, fewest = keys[0], keys[-1]
    entries = [data["groups"]["mars"][key] for key in (most, fewest)]
    speeds = [tokens_per_second(data, "mars", key) for key in (most, fewest)]
    full, twin = (tokens_per_second(data, *reference) for reference in (FULL, TWIN))
    steps = " / ".join(str(entry["steps"]) for entry in entries)
    seconds = " / ".join(format_digits(entry["median"]["seconds"]) for entry in entries)
    faster = (
        " / ".join(format_number(ratio(speed, reference), "{:.1f}x") for speed in speeds) for reference in (full, twin)
    )
    return (
        f"MARS-Cache, 32 frames, the 8B's shape, one H100, torch {data['setup']['torch']}, {steps} steps: seconds; "
        "faster than full recompute; than an autoregressive twin in a CUDA graph",
        "; ".join((f"{seconds} s", *faster)),
        "mars_speed_gpu.py",
        "mars_speed_gpu",
    )


def first_look_row(load: Load) -> tuple[str, str, str, str]:
    """The same from the first look, as long as the script has not run whole on a card."""
    answers = load("gpu_first_look")["answers"]
    before = load("mars_speed_gpu")["results"]["full recompute"]["summary"]["seconds"]
    captured, compiled = (
        " / ".join(format_digits(answers[f"{way}, {steps} steps"]["median"]) for steps in (128, 32))
        for way in ("captured", "compiled")
    )
    return (
        "MARS-Cache, 32 frames, the 8B's shape, one H100, a first look: 128 tokens in 128 / 32 steps (recomputing "
        f"everything: {format_digits(before)} s)",
        f"{captured} s; compiled {compiled} s",
        "mars_speed_gpu.py",
        "gpu_first_look",
    )


TABLES: dict[str, Callable[[Load], str]] = {
    "mars_speed_gpu": answers,
    "mars_steps_gpu": steps,
    "chunk_attention_gpu": chunk_attention,
    "video_file_gpu": video_file,
}
