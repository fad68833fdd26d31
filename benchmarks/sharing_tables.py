"""Tables and README rows of `shared_video.json` and `many_questions.json`: what sharing a video costs and saves."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gpu_tables import Load, NotMeasured

from vidlada_hf.evaluation.report import format_digits, markdown_table

Row = tuple[str, str, str, str]


def part(load: Load, name: str) -> dict[str, Any]:
    """A part of `many_questions.json` that is done."""
    try:
        data = load("many_questions").get(name, {})
    except FileNotFoundError:
        data = {}
    if "summary" not in data:
        raise NotMeasured(name)
    return data


def shared_video(load: Load) -> str:
    """Right answers with a video that does not see the question, beside exact decoding, by frames."""
    rows = []
    for frames, results in load("shared_video")["by_frames"].items():
        if "summary" in results:
            summary = results["summary"]
            right, seconds, of_all = summary["right"], summary["median_seconds"], summary["comparison"]
            interval = (
                f"{of_all['difference']:+.1f} ({of_all['difference_low']:+.1f} to {of_all['difference_high']:+.1f})"
            )
            rows.append(
                (
                    frames,
                    f"{summary['questions']:,}",
                    *(f"{100 * right[name]:.2f} %" for name in ("exact", "shared")),
                    f"{of_all['lost']} / {of_all['gained']}",
                    interval,
                    f"{format_digits(seconds['exact'])} / {format_digits(seconds['shared'])} s",
                )
            )
    head = (
        "frames",
        "questions",
        "right, exact",
        "right, shared",
        "lost / gained",
        "points (95 %)",
        "one more question",
    )
    return markdown_table(head, rows)


def one_more_question(load: Load) -> str:
    """Seconds of answers in two steps, and the ratios that count."""
    summary = part(load, "speed")["summary"]
    rows = [(name, f"{format_digits(seconds)} s") for name, seconds in summary["seconds"].items()]
    rows += [(name, f"{value:.3f}") for name, value in summary.items() if isinstance(value, float)]
    return markdown_table(("answers of two tokens in two steps", ""), rows)


def choices(load: Load) -> str:
    """Multiple-choice questions judged by generation and by score."""
    rows = [
        (
            name,
            f"{100 * entry['accuracy']:.1f} %",
            f"{100 * entry['low']:.1f} to {100 * entry['high']:.1f}",
            f"{entry['questions']:,}",
            f"{entry['lost']} / {entry['gained']}",
            f"{format_digits(entry['seconds'])} s",
            f"{entry['times as fast as generation']:.2f}x",
        )
        for name, entry in part(load, "choices")["summary"].items()
    ]
    head = ("by", "right", "95 %", "questions", "lost / gained", "seconds", "as fast as generation")
    return markdown_table(head, rows)


def readme_rows(load: Load) -> list[Row]:
    """What is there of each."""
    rows: list[Row] = []
    done = {frames: each["summary"] for frames, each in load("shared_video")["by_frames"].items() if "summary" in each}
    frames, summary = list(done.items())[-1]
    exact, shared, of_all = summary["right"]["exact"], summary["right"]["shared"], summary["comparison"]
    lost = f"{of_all['lost']} lost, {of_all['gained']} gained"
    what = f"a video that questions share, {frames} frames: right answers (exact decoding: {100 * exact:.1f} %)"
    figure = f"{100 * shared:.1f} % of {summary['questions']:,} ({lost})"
    rows.append((what, figure, "shared_video.py", "shared_video"))
    with suppress(NotMeasured):
        rows.append(speed_row(part(load, "speed")["summary"]))
    return rows


def speed_row(summary: dict[str, Any]) -> Row:
    """One more question about a video."""
    seconds, twenty = summary["seconds"], summary["20 one by one / 20 from scratch"]
    return (
        "one more question about a shared video, 32 frames, two steps, 2 CPU cores (the first); 20 of 20 from scratch",
        f"{format_digits(seconds['one more'])} s ({format_digits(seconds['first'])} s); {100 * twenty:.0f} %",
        "many_questions.py speed",
        "many_questions",
    )


TABLES: dict[str, Callable[[Load], str]] = {
    "shared_video": shared_video,
    "one_more_question": one_more_question,
    "choices": choices,
}
