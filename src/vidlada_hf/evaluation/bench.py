"""The benchmark: cache strategies and unmasking rules on one model and one set of questions.

Three passes, each of which goes on where it was interrupted: every set-up answers every question; the first questions
are timed, set-ups in turn; and on these each set-up is counted once.
"""

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..modeling.fingerprints_vidlada import fingerprint_model
from .cost_model import Machine
from .decoding import EXACT, DecodingRunner, DecodingSetup, group_by_video, split_batches, unique_setups
from .measure import Measurable, TimedDecoding, clock, count_each, describe_machine, measure_machine, time_in_turns
from .questions import VideoQuestion, are_right
from .record import Record
from .report import summarize_costs
from .statistics import compare_answers, compare_by_type


@dataclass(frozen=True)
class BenchOptions:
    """How much is measured.

    Args:
        rounds: that each set-up is timed in.
        timed_questions: how many questions, the first ones, are counted and timed.
        batch_size: questions at a time.

    Raises:
        ValueError: one of them is below 1.
    """

    rounds: int = 5
    timed_questions: int = 8
    batch_size: int = 1

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")


def run_bench(
    runner: DecodingRunner,
    questions: Sequence[VideoQuestion],
    setups: Sequence[DecodingSetup],
    path: Path,
    model_name: str,
    options: BenchOptions | None = None,
) -> dict[str, Any]:
    """Measures, or finishes measuring, and writes a JSON file.

    Args:
        setups: exact decoding is added if it is not among them.
        path: of the file. One that holds results of the same set-up is completed: what is in it is not run again.
        model_name: for the file.

    Returns:
        What the file holds: "setup" (what the results depend on), "machine" (operations and bytes a second that it
        reaches in large products and copies), "questions", and "results": for each set-up its answers ("ids", "texts"),
        what `measure` gives, and "summary" (see `summarize_costs` and `summarize_answers`).

    Raises:
        ValueError: a file with results of another set-up.
    """
    options, setups = options or BenchOptions(), unique_setups([EXACT, *setups])
    shared = any(each.share_video for each in setups)
    questions = group_by_video(questions) if shared else questions
    timed = list(questions[: options.timed_questions])
    setup = describe_setup(runner, model_name) | describe_questions(questions, len(timed), options.batch_size)
    if shared:
        setup["videos"] += (
            "; where a set-up is named 'shared video' also their keys and values, for which a video does not see its "
            "questions: these answers are not exact"
        )
    record = Record(path, setup)
    record.data.setdefault("questions", [_describe(question) for question in questions])
    if "machine" not in record.data:
        record.data["machine"] = asdict(measure_machine(runner.model.device, runner.model.dtype))
    results = record.data.setdefault("results", {})
    for each in setups:
        results.setdefault(each.name, asdict(each))

    if seconds := expected_seconds(runner, questions, setups, results, options):
        tqdm.write(f"This may take {format_duration(seconds)}, and goes on where it is stopped.", file=sys.stderr)
    answer_with_each(runner, questions, setups, results, record.save, options.batch_size)
    if any("counts" not in results[s.name] or len(results[s.name].get("seconds", [])) < options.rounds for s in setups):
        size, machine = options.batch_size, Machine(**record.data["machine"])
        batches = [runner.encode(timed[part], shared) for part in split_batches(timed, size, shared)]
        runs = {each.name: TimedDecoding(runner, batches, each, machine) for each in setups}
        measure_costs(runs, EXACT.name, options.rounds, results, record.save, len(timed))
    for entry in results.values():
        if len(entry.get("ids", [])) == len(questions) and entry.get("seconds") and "counts" in entry:
            entry["summary"] |= summarize_answers(questions, entry, results[EXACT.name])
    record.save()
    return record.data


def expected_seconds(
    runner: DecodingRunner,
    questions: Sequence[VideoQuestion],
    setups: Sequence[DecodingSetup],
    results: dict[str, dict[str, Any]],
    options: BenchOptions,
) -> float:
    """How long what is missing takes, if each answer takes as long as the first ones do by exact decoding: the first
    batch is answered once. 0 where nothing is missing."""
    entries, timed = [results[setup.name] for setup in setups], min(options.timed_questions, len(questions))
    answers = sum(len(questions) - len(entry.get("ids", [])) for entry in entries)
    for entry in entries:
        rounds = max(options.rounds - len(entry.get("seconds", [])), 0)
        answers += timed * (rounds + ("counts" not in entry))
    if not answers:
        return 0.0
    first = questions[: options.batch_size]
    batch, device = runner.encode(first), runner.model.device
    return answers * clock(lambda: runner.generate(batch, *EXACT.build()), device) / len(first)


def format_duration(seconds: float) -> str:
    """Such as "about 40 seconds" or "about 2.5 hours"."""
    if seconds < 10:
        return "a few seconds"
    for size, unit in ((3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            return f"about {seconds / size:.2g} {unit}"
    return f"about {seconds:.0f} seconds"


def measure_costs(
    runs: Mapping[str, Measurable],
    reference: str,
    rounds: int,
    results: dict[str, dict[str, Any]],
    save: Callable[[], None],
    questions: int = 1,
    warm_up: bool = False,
) -> None:
    """Times all runs in turn, counts each once, and fills "summary" (see `summarize_costs`) after each piece of work.

    Times come first: on a GPU that is there for minutes, counting an answer takes ten times as long as giving it.

    Args:
        reference, rounds, results, save, warm_up: see `time_in_turns`.
        questions: that a run answers.
    """

    def summarize() -> None:
        for entry in results.values():
            entry["summary"] = entry.get("summary", {}) | summarize_costs(entry, results[reference], questions)
        save()

    time_in_turns(runs, reference, rounds, results, summarize, warm_up)
    count_each(runs, results, summarize)


def describe_setup(runner: DecodingRunner, model_name: str) -> dict[str, Any]:
    """What results depend on, questions aside; a file of another set-up is not gone on with."""
    model, config = runner.model, runner.config
    return {
        "model": model_name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights": fingerprint_model(model),
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention": model.config.get_text_config()._attn_implementation,
        **describe_machine(model.device),
        "frames": runner.num_frames,
        "canvas": config.max_new_tokens,
        "block_length": config.block_length or min(32, config.max_new_tokens),
        "steps": sum(block.steps for block in config.blocks()),
        "stop_after": runner.stop_after,
        "generation": {k: v for k, v in config.to_dict().items() if k not in ("cache_strategy", "cache_config")},
        "videos": "encoded once, before anything is timed or counted",
    }


def describe_questions(questions: Sequence[VideoQuestion], timed: int, batch_size: int) -> dict[str, Any]:
    """Which questions, and how they are asked."""
    digest = hashlib.sha256()
    for question in questions:
        video = question.video
        digest.update(str(video).encode() if isinstance(video, (Path, str)) else bytes(video))
        digest.update(f"\t{question.question}\t{question.answers}\n".encode())
    return {
        "questions": len(questions),
        "questions_digest": digest.hexdigest()[:16],
        "timed_questions": timed,
        "batch_size": batch_size,
    }


def _describe(question: VideoQuestion) -> dict[str, Any]:
    return {"type": question.type, "question": question.question, "answers": list(question.answers)}


def answer_with_each(
    runner: DecodingRunner,
    questions: Sequence[VideoQuestion],
    setups: Sequence[DecodingSetup],
    results: dict[str, dict[str, Any]],
    save: Callable[[], None],
    batch_size: int,
) -> None:
    """All set-ups answer all questions, batch by batch; a batch's videos are encoded once. Where one of them shares a
    video, a batch is of questions about one that follow each other.

    Args:
        questions: read a slice at a time, so a sequence may make them when they are asked for.
        results: by name of a set-up; "ids" (one text of numbers an answer) and "texts" are filled, what is there is
            not run again.
        save: called after each batch.
    """
    for setup in setups:
        for key in ("ids", "texts"):
            results.setdefault(setup.name, {}).setdefault(key, [])
    counts = [len(results[setup.name]["ids"]) for setup in setups]
    shared = any(setup.share_video for setup in setups)
    parts = split_batches(questions, batch_size, shared)
    spans = [(part.start, min(part.stop, len(questions))) for part in parts]
    spans = [(start, end) for start, end in spans if min(counts) < end]
    batches = runner.encode_all((questions[start:end] for start, end in spans), shared)
    with tqdm(total=sum(len(questions) - count for count in counts), desc="answers", unit="answer") as bar:
        for (start, end), batch in zip(spans, batches, strict=True):
            due = [setup for setup in setups if len(results[setup.name]["ids"]) < end]
            for setup in due:
                bar.set_postfix_str(setup.name)
                ids = runner.cut_answers(runner.generate(batch, *setup.build(), share_video=setup.share_video))
                results[setup.name]["ids"][start:] = [" ".join(map(str, answer)) for answer in ids]
                results[setup.name]["texts"][start:] = runner.decode(ids)
                bar.update(end - start)
            save()


def summarize_answers(
    questions: Sequence[VideoQuestion], entry: dict[str, Any], exact: dict[str, Any]
) -> dict[str, Any]:
    """Answers beside those of exact decoding.

    Args:
        entry, exact: with the "ids" and "texts" of `answer_with_each`.

    Returns:
        "agreement" over all questions, and "accuracy" by question type, None unless all answers are known.
    """
    ids, exact_ids = ([list(map(int, answer.split())) for answer in part["ids"]] for part in (entry, exact))
    right, exact_right = (are_right(questions, part["texts"]) for part in (entry, exact))
    accuracy = None
    if right is not None and exact_right is not None:
        accuracy = compare_by_type([question.type for question in questions], right, exact_right)
    return {"agreement": asdict(compare_answers(ids, exact_ids)), "accuracy": accuracy}


__all__ = [
    "BenchOptions",
    "answer_with_each",
    "describe_setup",
    "measure_costs",
    "run_bench",
    "summarize_answers",
]
