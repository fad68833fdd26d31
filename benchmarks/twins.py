"""Twins that differ in one thing each: masked diffusion with full attention, with a causal mask, and autoregression.

    python -m moving_shapes.twins.train --processes 2   # first: at most an hour for each on two idle cores
    python benchmarks/twins.py [--threads 2] [--questions 1050] [--quick]   # one to two hours

Each kept checkpoint of each twin answers the same questions of the test split (8 frames, `accuracy`). The time of a
training step (`training`, one process with its half of a batch) and of an answer (`answers`, one question at a time,
the video's features given) is taken in rounds in which all take turns. The diffusion twins answer by `generate` with
threshold unmasking, on a canvas of 64 tokens; the autoregressive one by transformers' `LlamaForCausalLM` with its
key-value cache. With --quick untrained twins are measured, to test the script. An interrupted run goes on where it was.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from tqdm import tqdm

from moving_shapes import MovingShapes
from moving_shapes.evaluate import as_plain, measure
from moving_shapes.questions import LONG_TYPES
from moving_shapes.twins.models import AutoregressiveAnswers, CausalRecompute, build_twin, load_step
from moving_shapes.twins.train import RUNS, TWINS, twin_recipe
from vidlada_hf.evaluation.decoding import prepare_inputs
from vidlada_hf.evaluation.measure import clock, describe_machine
from vidlada_hf.evaluation.record import Record
from vidlada_hf.evaluation.report import format_digits, markdown_table
from vidlada_hf.modeling.fingerprints_vidlada import fingerprint_model
from vidlada_hf.training.optimizer import OptimizerOptions, build_optimizer
from vidlada_hf.training.task import find_task

FRAMES, ROUNDS, TIMED, BATCH = 8, 5, 40, 20
GENERATION = {"max_new_tokens": 64, "block_length": 32, "unmasking": "threshold"}
CPU = torch.device("cpu")
QUICK = {"max_new_tokens": 4, "block_length": 4}
# How answers are timed: name -> twin, further arguments of `generate`.
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "full, exact": ("full", {}),
    "full, mars": ("full", {"cache_strategy": "mars"}),
    "causal, exact": ("causal", {}),
    "autoregressive, key-value cache": ("autoregressive", {}),
}


# --- what is measured ------------------------------------------------------------------------------------------------


def find_checkpoints(runs: Path) -> dict[str, dict[int, Path]]:
    """The kept checkpoints of the last stage of each twin, by their steps.

    Raises:
        SystemExit: one is missing; the message says which, and how they are made.
    """
    stages = twin_recipe("full", runs)["stages"]
    arguments, folder = stages[-1]["arguments"], f"{len(stages)}-{stages[-1]['name']}"
    steps = range(arguments["save_steps"], arguments["max_steps"] + 1, arguments["save_steps"])
    found = {twin: {step: runs / twin / folder / f"checkpoint-{step}" for step in steps} for twin in TWINS}
    missing = [str(path) for paths in found.values() for path in paths.values() if not path.is_dir()]
    if missing:
        raise SystemExit(
            f"{len(missing)} checkpoints are missing, {missing[0]} first: train the twins with "
            f"`python -m moving_shapes.twins.train --processes 2 --output {runs}`."
        )
    return found


def ready(twin: str, model: Any, settings: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What answers for a twin, and the arguments of its `generate`."""
    if twin == "autoregressive":
        return AutoregressiveAnswers.of(model), {"max_new_tokens": settings["max_new_tokens"]}
    return model, settings | ({"cache_strategy": CausalRecompute()} if twin == "causal" else {})


def measure_accuracy(checkpoints: dict[str, dict[int, Path]], processor: Any, questions: int, record: Record) -> None:
    """Scores by type of each checkpoint that has none yet."""
    examples, generation = list(MovingShapes("test", questions, FRAMES)), record.data["setup"]["generation"]
    for twin, paths in checkpoints.items():
        scores = record.data.setdefault("accuracy", {}).setdefault(twin, {})
        for step, path in paths.items():
            if str(step) in scores:
                continue
            model, settings = ready(twin, load_step(path), generation)
            began = time.perf_counter()
            found = as_plain(measure(model, processor, examples, FRAMES, batch_size=BATCH, **settings))
            scores[str(step)] = {"seconds": round(time.perf_counter() - began, 1), "scores": found}
            record.save()


def time_training(record: Record, quick: bool) -> None:
    """Seconds of a training step of each twin in the last stage: forward, backward and optimizer, in turn."""
    if "training" in record.data:
        return
    rounds, trainings = 2 if quick else 2 * ROUNDS, {twin: prepare_training(twin, quick) for twin in TWINS}
    seconds: dict[str, list[float]] = {twin: [] for twin in TWINS}
    for number in tqdm(range(rounds + 1), desc="training", unit="round"):
        for twin, step in trainings.items():
            seconds[twin].append(round(step(number), 4))
    record.data["training"] = {"seconds": {twin: own[1:] for twin, own in seconds.items()}}  # the first warms up
    record.save()


def prepare_training(twin: str, quick: bool) -> Callable[[int], float]:
    """A function that does a training step on the batch of a number, and returns its seconds without the collation."""
    stage = twin_recipe(twin)["stages"][-1]
    options = stage["options"] | ({"scenes": 8, "group": 4, "text_tokens": 60} if quick else {})
    task = find_task(stage["task"])(*build_twin(1), seed=1, **options)
    optimizer, size = (
        build_optimizer(task, OptimizerOptions(**stage["rates"])),
        2 if quick else stage["batch_size"] // 2,
    )

    def step(number: int) -> float:
        batch = task.collate(list(range(number * size, (number + 1) * size)))

        def run() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=stage["arguments"]["bf16"]):
                loss = task(**batch)["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return clock(run, CPU)

    return step


def time_answers(checkpoints: dict[str, dict[int, Path]], processor: Any, record: Record, quick: bool) -> None:
    """Seconds and tokens of the answers of the last checkpoints to some questions, all ways in turn."""
    count, rounds = (2, 1) if quick else (TIMED, ROUNDS)
    entry = record.data.setdefault("answers", {"types": [], "tokens": {}, "seconds": {name: [] for name in WAYS}})
    if len(entry["seconds"]["full, exact"]) >= rounds:
        return
    models = {twin: load_step(paths[max(paths)]) for twin, paths in checkpoints.items()}
    generation = record.data["setup"]["generation"]
    ways = {name: ready(twin, models[twin], generation | more) for name, (twin, more) in WAYS.items()}
    examples = balanced(count)
    inputs = [encode(models["full"], processor, example) for example in examples]
    entry["types"] = [example.type for example in examples]
    done = len(entry["seconds"]["full, exact"])
    for number in tqdm(range(done - 1, rounds), desc="answers", unit="round"):  # the first warms up
        timed = {name: [] for name in WAYS}
        for each in inputs:
            for name, (model, settings) in ways.items():
                timed[name].append(time_answer(model, each, settings))
        entry["tokens"] = {name: [tokens for _, tokens in own] for name, own in timed.items()}
        if number >= done:
            for name, own in timed.items():
                entry["seconds"][name].append([seconds for seconds, _ in own])
            record.save()


def time_answer(model: Any, inputs: dict[str, Any], settings: dict[str, Any]) -> tuple[float, int]:
    """Seconds of one answer, and how many tokens it has before its end."""
    began = time.perf_counter()
    sequences = model.generate(**inputs, **settings)
    seconds = time.perf_counter() - began
    ends = sequences.new_tensor(getattr(model, "model", model).config.get_text_config().eos_token_id)
    return round(seconds, 5), int((~torch.isin(sequences[0, inputs["input_ids"].shape[1] :], ends)).sum())


def balanced(count: int) -> list[Any]:
    """Questions of the test split, half of them with long answers."""
    long = MovingShapes("test", count // 2, FRAMES, types=LONG_TYPES)
    return [*MovingShapes("test", count - count // 2, FRAMES, types=("color", "motion", "first", "choice")), *long]


@torch.no_grad()
def encode(model: Any, processor: Any, example: Any) -> dict[str, Any]:
    """Arguments of `generate` with the features of the video, which all twins' towers give alike."""
    inputs = dict(prepare_inputs(processor, [example.as_question()], FRAMES))
    features = model.get_video_features(inputs.pop("pixel_values_videos"), inputs["num_frames_per_video"])
    return inputs | {"video_features": features}


# --- tables ----------------------------------------------------------------------------------------------------------


def table(data: dict[str, Any]) -> str:
    """Right answers at equal steps, and in the time that the quickest twin takes for these."""
    per_step = {twin: statistics.median(seconds) for twin, seconds in data["training"]["seconds"].items()}
    steps = [int(step) for step in data["accuracy"]["full"]]
    rows = []
    for step in steps:
        at_once = min(per_step.values()) * step
        reached = {twin: max((s for s in steps if s * per_step[twin] <= at_once), default=0) for twin in TWINS}
        equal_seconds = [share(data, twin, reached[twin]) for twin in TWINS]
        rows.append([f"{step:,}", *(share(data, twin, step) for twin in TWINS), *equal_seconds])
    head = ["steps", *TWINS, *(f"{twin}, equal seconds" for twin in TWINS)]
    seconds = ", ".join(f"{twin} {format_digits(value)} s" for twin, value in per_step.items())
    about = "right answers in percent, with 95 % intervals; equal seconds: the last checkpoint that the twin reaches in"
    about += " the time in which the quickest one does these steps"
    return f"{markdown_table(head, rows)}\n\n{data['setup']['questions']:,} questions; {about}. A step: {seconds}."


def share(data: dict[str, Any], twin: str, step: int) -> str:
    """Such as `84.2 (81.9 to 86.3)`; `-` before the first checkpoint."""
    if not step:
        return "-"
    score = data["accuracy"][twin][str(step)]["scores"]["all"]
    return " ".join([f"{100 * score['accuracy']:.1f}", f"({100 * score['low']:.1f} to {100 * score['high']:.1f})"])


def types_table(data: dict[str, Any]) -> str:
    """Right answers by type after the last step."""
    last = {twin: list(scores.values())[-1]["scores"] for twin, scores in data["accuracy"].items()}
    rows = []
    for type in last["full"]:
        scores = [last[twin][type] for twin in TWINS]
        cells = [f"{100 * s['accuracy']:.1f} ({100 * s['low']:.0f} to {100 * s['high']:.0f})" for s in scores]
        rows.append([type, *cells])
    return markdown_table(["type", *TWINS], rows)


def answers_table(data: dict[str, Any]) -> str:
    """The median seconds of a short and of a long answer, and their tokens."""
    answers, rows = data["answers"], []
    groups = {"short": [t not in LONG_TYPES for t in answers["types"]]}
    groups["long"] = [not short for short in groups["short"]]
    for name in WAYS:
        medians = [statistics.median(each) for each in zip(*answers["seconds"][name], strict=True)]
        cells = []
        for is_own in groups.values():
            own = [(s, t) for s, t, kept in zip(medians, answers["tokens"][name], is_own, strict=True) if kept]
            seconds = statistics.median(s for s, _ in own)
            cells += [f"{1000 * seconds:.0f} ms", f"{statistics.mean(t for _, t in own):.1f}"]
        rows.append([name, *cells])
    return markdown_table(["twin", "short answer", "its tokens", "long answer", "its tokens"], rows)


# --- the command -----------------------------------------------------------------------------------------------------


def untrained(folder: Path) -> dict[str, dict[int, Path]]:
    """Checkpoints of twins that have not learned anything."""
    model = build_twin()[0]
    weights = {f"model.{name}": w.contiguous() for name, w in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    return {twin: {1: folder, 2: folder} for twin in TWINS}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=RUNS, help="the folder that the twins were trained in")
    parser.add_argument("--questions", type=int, default=1050, help="of all types in turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = untrained(Path(folder)) if options.quick else find_checkpoints(options.runs)
        last = {twin: fingerprint_model(load_step(paths[max(paths)])) for twin, paths in checkpoints.items()}
        setup = describe_machine(CPU) | {
            "split": "test",
            "frames": FRAMES,
            "questions": 3 if options.quick else options.questions,
            "weights": last,
            "generation": GENERATION | (QUICK if options.quick else {}),
            "transformers": transformers.__version__,
        }
        record, processor = Record(options.output, setup), build_twin()[1]
        time_training(record, options.quick)
        time_answers(checkpoints, processor, record, options.quick)
        measure_accuracy(checkpoints, processor, setup["questions"], record)
    for each in (table, types_table, answers_table):
        print(each(record.data), end="\n\n")


if __name__ == "__main__":
    main()
