"""Does MARS-Cache answer as well as exact decoding, and what is each of its parts worth?

    for study in whole parts; do
        python benchmarks/mars_accuracy.py $study --part 1/2 --threads 1 &
        python benchmarks/mars_accuracy.py $study --part 2/2 --threads 1 & wait
        python benchmarks/mars_accuracy.py $study --join
    done

The embedded checkpoint on the moving shapes' test split, all types alike, captions among them: 32 frames, 128 tokens,
128 steps, blocks of 32, one token a step. Each set-up answers each question, whose video is encoded once; a question's
answers are compared one by one. Operations are counted on a question that runs all 128 steps.

- "whole": 1,260 questions to exact decoding and to MARS-Cache as users get it: an answer is denoised to its end. Writes
  mars_accuracy.json. About 20 minutes on two cores.
- "parts": 315 questions to all set-ups. An answer is denoised to the end of the block that it ends in; what comes
  before its end is then the same as if all 128 steps ran. So at least 32 steps run, at ten times the cost of the few
  that a short answer needs otherwise, and its words often come last: caches are as stale as they get. Writes
  mars_parts.json. About 40 minutes.

Each part of a study has a file of its own in --work (runs/mars_accuracy/STUDY), written after each batch: an
interrupted part goes on where it was. `--join` wants all parts finished, and says what is missing. `--only mars` takes
fewer set-ups; what is added later is compared with what is there.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from moving_shapes import BENCHMARK_TYPES, CROSS_FRAME_TYPES, Example, MovingShapes
from moving_shapes.evaluate import as_plain, score_answers
from moving_shapes.train.tiny_model import build_tiny
from vidlada_hf import MARSCacheConfig
from vidlada_hf.evaluation.bench import answer_with_each, describe_setup, summarize_answers
from vidlada_hf.evaluation.cost_model import Machine
from vidlada_hf.evaluation.decoding import EXACT, STOP_AFTER, DecodingRunner, DecodingSetup
from vidlada_hf.evaluation.measure import count_decoding
from vidlada_hf.evaluation.questions import VideoQuestion, are_right
from vidlada_hf.evaluation.record import Record
from vidlada_hf.evaluation.report import markdown_table
from vidlada_hf.evaluation.statistics import compare_right

_MARS = MARSCacheConfig()
_DEEPEST = min(interval for interval in _MARS.visual_intervals if interval is not None)
SETUPS = {
    "exact": EXACT,
    "mars": DecodingSetup("mars"),
    "mars, first step chunked": DecodingSetup("mars", {"first_step": "chunked"}),
    "no anchors": DecodingSetup("mars", {"anchors": 0}),
    "random anchors": DecodingSetup("mars", {"anchor_choice": "random"}),
    "no chunk attention": DecodingSetup("mars", {"neighborhood": None}),
    "one interval for all": DecodingSetup("mars", {"visual_intervals": [_DEEPEST], "text_intervals": [_DEEPEST]}),
    "visual never refreshed": DecodingSetup("mars", {"visual_intervals": [None] * _MARS.groups}),
    "dual": DecodingSetup("dual"),
    "interval": DecodingSetup("interval"),
}

STUDIES: dict[str, dict[str, Any]] = {
    "whole": {"questions": 1260, "stop_after": "answer", "only": ["mars"], "output": "mars_accuracy.json"},
    "parts": {"questions": 315, "stop_after": "block", "only": list(SETUPS), "output": "mars_parts.json"},
}


class Part(Sequence):
    """The questions of one part: every so many-th batch of the benchmark, drawn when they are asked for.

    They are asked type after type, so that the answers of a batch are about as long: a batch runs until all are done.
    """

    def __init__(self, options: argparse.Namespace, number: int, parts: int) -> None:
        types = options.types or BENCHMARK_TYPES
        self.shapes = MovingShapes("test", options.questions, options.frames, types, seed=options.seed or 0)
        order = sorted(range(len(self.shapes)), key=lambda i: i % len(types))
        self.indices = [index for i, index in enumerate(order) if i // options.batch_size % parts == number - 1]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.shapes[self.indices[index]].as_question()

    def without_pictures(self) -> list[Example]:
        """The examples, for judging answers."""
        drawn = [self.shapes.draw(i) for i in self.indices]
        return [Example(None, Path(), q.question("sentence"), q.answer("compact"), q.type, q, s) for s, q in drawn]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--model", help="folder or id; the embedded checkpoint by default")
    parser.add_argument("--questions", type=int)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--types", nargs="+", help="of questions; all by default")
    parser.add_argument("--seed", type=int, help="of the questions")
    parser.add_argument("--stop-after", choices=STOP_AFTER)
    parser.add_argument("--only", nargs="+", choices=SETUPS)
    parser.add_argument("--part", default="1/1", help="such as 2/3: the second of three processes")
    parser.add_argument("--join", action="store_true", help="put the parts together")
    parser.add_argument("--threads", type=int, help="of this process; 1 each is best for as many parts as cores")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--quick", action="store_true", help="a few questions to an untrained model, and the join")
    options = parser.parse_args(arguments)
    for name, value in STUDIES[options.study].items():
        if getattr(options, name) is None:
            setattr(options, name, Path(__file__).with_name(value) if name == "output" else value)
    options.work = options.work or Path("runs") / "mars_accuracy" / options.study
    options.only = list(dict.fromkeys(["exact", "mars", *options.only]))
    if options.threads:
        torch.set_num_threads(options.threads)
    runner = load(options)
    if not options.join:
        answer_part(runner, options, *parse_part(options.part))
    if options.join or options.quick:
        print(table(join(runner, options)))


def load(options: argparse.Namespace) -> DecodingRunner:
    """The model in the setting."""
    settings = {"max_new_tokens": 128, "block_length": 32, "max_denoising_steps": 128}
    if options.quick:
        options.questions, options.frames, options.batch_size = 4, 8, 2
        settings = {"max_new_tokens": 8, "block_length": 4, "max_denoising_steps": 8}
        model, processor = build_tiny()
        return DecodingRunner(model.eval(), processor, options.frames, options.stop_after, settings)
    return DecodingRunner.from_pretrained(
        options.model, options.frames, stop_after=options.stop_after, settings=settings
    )


def parse_part(text: str) -> tuple[int, int]:
    """2/3 -> (2, 3)."""
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise SystemExit(f"--part {text}: write 1/2 for the first of two processes.")
    return int(part), int(parts)


def setup_of(runner: DecodingRunner, options: argparse.Namespace) -> dict[str, Any]:
    """What the answers depend on. Not the number of threads: parts may have more or fewer."""
    setup = describe_setup(runner, options.model or "vidlada-tiny")
    for name in ("threads", "cores"):
        setup.pop(name)
    chosen = {name: getattr(options, name) for name in ("types", "seed") if getattr(options, name)}
    return setup | {"questions": options.questions, "split": "test", "batch_size": options.batch_size} | chosen


def open_part(runner: DecodingRunner, options: argparse.Namespace, part: int, parts: int) -> Record:
    """The file of one part."""
    setup = setup_of(runner, options) | {"part": f"{part}/{parts}"}
    return Record(options.work / f"{part}of{parts}.json", setup)


def answer_part(runner: DecodingRunner, options: argparse.Namespace, part: int, parts: int) -> None:
    """Asks the questions of one part."""
    record, setups = open_part(runner, options, part, parts), [SETUPS[name] for name in options.only]
    results = record.data.setdefault("results", {})
    answer_with_each(runner, Part(options, part, parts), setups, results, record.save, options.batch_size)


def join(runner: DecodingRunner, options: argparse.Namespace) -> dict[str, Any]:
    """Compares the answers of all parts, counts operations, and writes the result."""
    examples, answers = read_parts(runner, options)
    questions = [example.as_question() for example in examples]
    record, counted = Record(options.output, setup_of(runner, options)), counts_of_all_studies(runner, options)
    results = record.data.setdefault("results", {})
    for name, own in answers.items():
        setup = SETUPS[name]
        counts = counted.data[name] = counted.data.get(name) or count(runner, setup, options)
        counted.save()
        about = {"cache_strategy": setup.cache_strategy, "cache_config": setup.cache_config, "counts": counts}
        results[name] = about | summarize_answers(questions, own, answers["exact"])
        results[name]["accuracy"] |= compare_cross_frame(questions, own, answers["exact"])
        results[name]["beside_mars"] = compare(questions, own, answers["mars"])
        results[name]["facts"] = count_facts(examples, own["texts"])
        results[name]["flops_saving"] = round(results["exact"]["counts"]["flops"] / counts["flops"], 2)
        record.save()
    record.data["checks"] = check(results["mars"])
    record.save()
    return record.data


def read_parts(
    runner: DecodingRunner, options: argparse.Namespace
) -> tuple[list[Example], dict[str, dict[str, list[str]]]]:
    """The examples and the answers ("ids", "texts") of each set-up, of all parts."""
    files = sorted(options.work.glob("*of*.json"))
    if not files:
        raise SystemExit(f"{options.work} holds no parts: run them first.")
    parts = int(files[0].stem.partition("of")[2])
    examples: list[Example] = []
    answers: dict[str, dict[str, list]] = {name: {"ids": [], "texts": []} for name in SETUPS if name in options.only}
    for number in range(1, parts + 1):
        path = options.work / f"{number}of{parts}.json"
        if not path.exists():
            raise SystemExit(f"{path} is missing: run --part {number}/{parts}.")
        part, results = Part(options, number, parts), open_part(runner, options, number, parts).data["results"]
        for name in answers:
            own = results.get(SETUPS[name].name, {"ids": [], "texts": []})
            if len(own["ids"]) < len(part):
                raise SystemExit(f"{path} holds {len(own['ids'])} of {len(part)} answers of {name!r}: run it again.")
            for key in ("ids", "texts"):
                answers[name][key] += own[key]
        examples += part.without_pictures()
    return examples, answers


def counts_of_all_studies(runner: DecodingRunner, options: argparse.Namespace) -> Record:
    """Operations by set-up: they do not depend on the study, and counting exact decoding takes minutes."""
    setup = setup_of(runner, options)
    for name in ("stop_after", "questions", "split", "batch_size", "types", "seed"):
        setup.pop(name, None)
    return Record(options.work.parent / "counts.json", setup)


def count(runner: DecodingRunner, setup: DecodingSetup, options: argparse.Namespace) -> dict[str, Any]:
    """Operations of one question whose whole canvas is denoised, and what is kept meanwhile."""
    whole = DecodingRunner(runner.model, runner.processor, runner.num_frames, "canvas", runner.settings)
    batch = whole.encode([MovingShapes("test", 1, options.frames)[0].as_question()])
    counts = count_decoding(whole, [batch], setup, Machine(1.0, 1.0))
    return {key: counts[key] for key in ("flops", "flops_planned", "steps", "kept_bytes", "live_bytes")}


def compare(questions: Sequence[VideoQuestion], own: dict[str, list], other: dict[str, list]) -> dict[str, Any]:
    """`Comparison` of two set-ups' answers, as plain values."""
    right, other_right = are_right(questions, own["texts"]), are_right(questions, other["texts"])
    assert right is not None and other_right is not None
    return asdict(compare_right(right, other_right))


def compare_cross_frame(
    questions: Sequence[VideoQuestion], own: dict[str, list], exact: dict[str, list]
) -> dict[str, Any]:
    """The comparison with exact decoding on the types that need several frames, where there are such questions."""
    across = [i for i, question in enumerate(questions) if question.type in CROSS_FRAME_TYPES]
    if not across:
        return {}
    chosen, chosen_exact = ({"texts": [part["texts"][i] for i in across]} for part in (own, exact))
    return {"cross-frame": compare([questions[i] for i in across], chosen, chosen_exact)}


def count_facts(examples: Sequence[Example], texts: Sequence[str]) -> dict[str, Any]:
    """How many facts of captions and descriptions are right."""
    scores = as_plain(score_answers(examples, texts))
    kept = ("facts", "facts_right", "facts_stated", "by_facts")
    return {type: {k: scores[type][k] for k in kept} for type in ("caption", "detail") if type in scores}


def check(mars: dict[str, Any]) -> dict[str, float]:
    """The figures that this is about: points lost over all and on the worst type, and operations saved."""
    types = [
        comparison["difference"] for type, comparison in mars["accuracy"].items() if type not in ("all", "cross-frame")
    ]
    return {
        "points lost, all": -mars["accuracy"]["all"]["difference"],
        "points lost, worst type": -min(types),
        "FLOPs saved, all steps run": mars["flops_saving"],
    }


def beside_mars(comparison: dict[str, Any]) -> str:
    """What a change of MARS-Cache, or another cache, is worth, and whether so many questions can show it."""
    low, high = comparison["difference_low"], comparison["difference_high"]
    shown = f"{comparison['difference']:+.1f} ({low:+.1f} to {high:+.1f})"
    return shown if low > 0 or high < 0 else f"nothing shown: {shown}"


def table(data: dict[str, Any]) -> str:
    """Markdown: a line a set-up."""
    head = ["", "right", "difference", "95 %", "lost / gained", "worst type", "cross-frame", "beside mars"]
    head += ["same tokens", "FLOPs saved"]
    rows = []
    for name, entry in data["results"].items():
        accuracy = entry["accuracy"]
        of_all, across = accuracy["all"], accuracy.get("cross-frame")
        types = {type: comparison for type, comparison in accuracy.items() if type not in ("all", "cross-frame")}
        worst = min(types, key=lambda type: types[type]["difference"])
        row = [name, f"{100 * of_all['accuracy']:.2f} %", f"{of_all['difference']:+.2f}"]
        row += [f"{of_all['difference_low']:+.2f} to {of_all['difference_high']:+.2f}"]
        row += [f"{of_all['lost']} / {of_all['gained']}"]
        row += [f"{worst} {types[worst]['difference']:+.1f}" if name != "exact" else "-"]
        row += [f"{across['difference']:+.2f}" if across else "-"]
        row += ["-" if name in ("exact", "mars") else beside_mars(entry["beside_mars"])]
        rows.append(row + [f"{100 * entry['agreement']['tokens']:.1f} %", f"{entry['flops_saving']:.1f}x"])
    return markdown_table(head, rows, "lrrrrlrlrr")


if __name__ == "__main__":
    main()
