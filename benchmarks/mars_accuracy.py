"""Does MARS-Cache answer as well as exact decoding, and what is each of its parts worth?

    for study in whole lowest parts; do
        python benchmarks/mars_accuracy.py $study --part 1/2 --threads 1 &
        python benchmarks/mars_accuracy.py $study --part 2/2 --threads 1 & wait
        python benchmarks/mars_accuracy.py $study --join
    done

The embedded checkpoint on the moving shapes' test split, all types alike, captions among them: 32 frames, 128 tokens,
128 steps, blocks of 32, one token a step. Each contender answers each question, whose video is encoded once; a
question's answers are compared one by one. Operations are counted on a question that runs all 128 steps.

- "whole": 5,040 questions to exact decoding and to MARS-Cache as users get it: an answer that has ended is left alone.
  Writes mars_accuracy.json. About 70 minutes on two cores.
- "lowest": the two types that lost the most in "whole", 600 fresh questions each: of 21 types some lose by chance.
  Writes mars_lowest.json. About 25 minutes.
- "parts": 315 questions to all contenders. An answer is left alone once the block that it ends in is finished; what
  comes before its end is then the same as if all 128 steps ran. So at least 32 steps run, at ten times the cost of the
  few that a short answer needs otherwise, and its words often come last: caches are as stale as they get. Writes
  mars_parts.json. About 40 minutes.

Each part of a study has a file of its own in --work (runs/mars_accuracy/STUDY), written after each batch: an
interrupted part goes on where it was. `--join` wants all parts finished, and says what is missing. `--only mars` takes
fewer contenders; what is added later is compared with what is there.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from vidlada_hf.asking import find_checkpoint

from moving_shapes import (
    BENCHMARK_TYPES,
    CROSS_FRAME_TYPES,
    Example,
    MovingShapes,
    is_right,
)
from moving_shapes.evaluate import as_plain, score_answers
from moving_shapes.train.tiny_model import build_tiny
from vidlada_hf import MARSCacheConfig, VidLaDAForConditionalGeneration, VidLaDAProcessor
from vidlada_hf.evaluation.bench import collect_answers, count_costs, describe_setup
from vidlada_hf.evaluation.cost_model import Machine
from vidlada_hf.evaluation.decoding import ENDINGS, EXACT, DecodingRunner, DecodingSetup
from vidlada_hf.evaluation.statistics import compare_answers, compare_by_type, compare_right
from vidlada_hf.evaluation.timing import Record

_MARS = MARSCacheConfig()
_DEEPEST = min(interval for interval in _MARS.visual_intervals if interval is not None)
CONTENDERS = {
    "exact": EXACT,
    "mars": DecodingSetup("mars"),
    "mars, first step chunked": DecodingSetup("mars", {"first_step": "chunked"}),
    "no anchors": DecodingSetup("mars", {"anchors": 0}),
    "random anchors": DecodingSetup("mars", {"anchor_choice": "random"}),
    "no chunk attention": DecodingSetup("mars", {"neighborhood": None}),
    "one interval for all": DecodingSetup("mars", {"visual_intervals": [_DEEPEST], "text_intervals": [_DEEPEST]}),
    "visual never refreshed": DecodingSetup("mars", {"visual_intervals": [None] * _MARS.groups}),
    "mars-adaptive": DecodingSetup("mars-adaptive"),
    "dual": DecodingSetup("dual"),
    "interval": DecodingSetup("interval"),
}

STUDIES: dict[str, dict[str, Any]] = {
    "whole": {"questions": 5040, "ending": "stop", "only": ["mars"], "output": "mars_accuracy.json"},
    "lowest": {
        "questions": 1200,
        "types": ["choice", "detail"],
        "seed": 1,
        "ending": "stop",
        "only": ["mars"],
        "output": "mars_lowest.json",
    },
    "parts": {"questions": 315, "ending": "block", "only": list(CONTENDERS), "output": "mars_parts.json"},
}


class Share(Sequence):
    """The questions of one part: every so many-th batch of the benchmark, drawn when they are asked for.

    They are asked type after type, so that the answers of a batch are about as long: a batch runs until all are done.
    """

    def __init__(self, questions: MovingShapes, part: int, parts: int, batch_size: int) -> None:
        order = sorted(range(len(questions)), key=lambda i: i % len(questions.types))
        self.numbers = [i for place, i in enumerate(order) if place // batch_size % parts == part - 1]
        self.questions = questions

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Any) -> Any:
        numbers = self.numbers[index]
        return [self.questions[i] for i in numbers] if isinstance(index, slice) else self.questions[numbers]

    def without_pictures(self) -> list[Example]:
        """The questions, for judging answers."""
        drawn = [self.questions.draw(i) for i in self.numbers]
        return [
            Example(None, None, q.question("sentence"), q.answer("compact"), q.type, q, scene) for scene, q in drawn
        ]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--model", help="folder or id; the embedded checkpoint by default")
    parser.add_argument("--questions", type=int)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--types", nargs="+", help="of questions; all by default")
    parser.add_argument("--seed", type=int, help="of the questions")
    parser.add_argument("--ending", choices=ENDINGS)
    parser.add_argument("--only", nargs="+", choices=CONTENDERS)
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
    if options.threads:
        torch.set_num_threads(options.threads)
    denoiser = load(options)
    if not options.join:
        answer_part(denoiser, options, *read_part(options.part))
    if options.join or options.quick:
        print(table(join(denoiser, options)))


def load(options: argparse.Namespace) -> DecodingRunner:
    """The model in the setting."""
    settings = {"max_new_tokens": 128, "block_length": 32, "max_denoising_steps": 128}
    if options.quick:
        options.questions, options.frames, options.batch_size = 4, 8, 2
        settings = {"max_new_tokens": 8, "block_length": 4, "max_denoising_steps": 8}
        model, processor = build_tiny()
        return DecodingRunner(model.eval(), processor, options.frames, options.ending, settings)
    name = find_checkpoint(options.model)
    model = VidLaDAForConditionalGeneration.from_pretrained(name)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return DecodingRunner(model, VidLaDAProcessor.from_pretrained(name), options.frames, options.ending, settings)


def read_part(text: str) -> tuple[int, int]:
    """2/3 -> (2, 3)."""
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise SystemExit(f"--part {text}: write 1/2 for the first of two processes.")
    return int(part), int(parts)


def questions_of(options: argparse.Namespace, part: int, parts: int) -> Share:
    """Of one part."""
    types, seed = options.types or BENCHMARK_TYPES, options.seed or 0
    return Share(
        MovingShapes("test", options.questions, options.frames, types, seed=seed), part, parts, options.batch_size
    )


def setup_of(denoiser: DecodingRunner, options: argparse.Namespace) -> dict[str, Any]:
    """What the answers depend on. Not the number of threads: parts may have more or fewer."""
    setup = describe_setup(denoiser, options.model or "vidlada-tiny")
    for name in ("threads", "cores"):
        setup.pop(name)
    asked = {name: getattr(options, name) for name in ("types", "seed") if getattr(options, name)}
    return setup | {"questions": options.questions, "split": "test", "batch_size": options.batch_size} | asked


def answer_part(denoiser: DecodingRunner, options: argparse.Namespace, part: int, parts: int) -> None:
    """Asks the questions of one part."""
    record = Record(options.work / f"{part}of{parts}.json", setup_of(denoiser, options) | {"part": f"{part}/{parts}"})
    contenders = [CONTENDERS[name] for name in dict.fromkeys(["exact", "mars", *options.only])]
    for contender in contenders:
        record.data.setdefault("contenders", {}).setdefault(contender.name, {"ids": [], "texts": []})
    collect_answers(denoiser, questions_of(options, part, parts), contenders, record, options.batch_size)


def join(denoiser: DecodingRunner, options: argparse.Namespace) -> dict[str, Any]:
    """Compares the answers of all parts, counts operations, and writes the result."""
    files = sorted(options.work.glob("*of*.json"))
    if not files:
        raise SystemExit(f"{options.work} holds no parts: run them first.")
    parts = int(files[0].stem.partition("of")[2])
    items: list[Example] = []
    answers: dict[str, dict[str, list]] = {name: {"ids": [], "texts": []} for name in CONTENDERS}
    for part in range(1, parts + 1):
        path = options.work / f"{part}of{parts}.json"
        if not path.exists():
            raise SystemExit(f"{path} is missing: run --part {part}/{parts}.")
        share = questions_of(options, part, parts)
        data = Record(path, setup_of(denoiser, options) | {"part": f"{part}/{parts}"}).data["contenders"]
        for name, contender in CONTENDERS.items():
            found = data.get(contender.name, {"ids": [], "texts": []})
            if name not in ("exact", "mars", *options.only):
                continue
            if len(found["ids"]) < len(share):
                raise SystemExit(f"{path} holds {len(found['ids'])} of {len(share)} answers of {name!r}: run it again.")
            for key in ("ids", "texts"):
                answers[name][key] += found[key]
        items += share.without_pictures()
    record = Record(options.output, setup_of(denoiser, options))
    results, counted = record.data.setdefault("contenders", {}), counts_of_all_studies(denoiser, options)
    for name, contender in CONTENDERS.items():
        if answers[name]["ids"]:
            counts = counted.data.get(name) or count(denoiser, contender, options)
            counted.data[name] = counts
            counted.save()
            about = {"cache": contender.cache, "settings": contender.settings, "counts": counts}
            results[name] = about | compare(items, answers[name], answers["exact"], answers["mars"])
            flops = results["exact"]["counts"]["flops"]
            results[name]["flops_saving"] = round(flops / counts["flops"], 2)
            record.save()
    record.data["checks"] = check(results["mars"])
    record.save()
    return record.data


def check(mars: dict[str, Any]) -> dict[str, float]:
    """The figures that this is about: points lost over all and on the worst type, and operations saved."""
    types = [found["difference"] for type, found in mars["accuracy"].items() if type not in ("all", "cross-frame")]
    return {
        "points lost, all": -mars["accuracy"]["all"]["difference"],
        "points lost, worst type": -min(types),
        "FLOPs saved, all steps run": mars["flops_saving"],
    }


def compare(
    items: Sequence[Example], own: dict[str, list], exact: dict[str, list], mars: dict[str, list]
) -> dict[str, Any]:
    """Agreement, and accuracy beside exact decoding's: by type, on the types that need several frames, over all; and
    over all beside MARS-Cache's at its defaults."""
    ids, theirs = ([[int(i) for i in text.split()] for text in part["ids"]] for part in (own, exact))
    right, exact_right, mars_right = (
        [is_right(item.details, text) for item, text in zip(items, part["texts"], strict=True)]
        for part in (own, exact, mars)
    )
    types = [item.type for item in items]
    across = [i for i, type in enumerate(types) if type in CROSS_FRAME_TYPES]
    found = compare_by_type(types, right, exact_right)
    if across:
        found["cross-frame"] = asdict(compare_right([right[i] for i in across], [exact_right[i] for i in across]))
    facts = as_plain(score_answers(items, own["texts"]))
    kept = ("facts", "facts_right", "facts_told", "by_facts")
    return {
        "agreement": asdict(compare_answers(ids, theirs)),
        "accuracy": found,
        "beside_mars": asdict(compare_right(right, mars_right)),
        "facts": {type: {k: facts[type][k] for k in kept} for type in ("caption", "detail") if type in facts},
    }


def counts_of_all_studies(denoiser: DecodingRunner, options: argparse.Namespace) -> Record:
    """Operations by contender: they do not depend on the study, and counting exact decoding takes minutes."""
    setup = setup_of(denoiser, options)
    for name in ("ending", "questions", "split", "batch_size", "types", "seed"):
        setup.pop(name, None)
    return Record(options.work.parent / "counts.json", setup)


def count(denoiser: DecodingRunner, contender: DecodingSetup, options: argparse.Namespace) -> dict[str, Any]:
    """Operations of one question whose whole canvas is denoised, and what is kept meanwhile."""
    whole = DecodingRunner(denoiser.model, denoiser.processor, denoiser.num_frames, "canvas", denoiser.settings)
    encoded = whole.encode(MovingShapes("test", 1, options.frames)[:1])
    found = count_costs(whole, [encoded], contender, Machine(1.0, 1.0))
    return {key: found[key] for key in ("flops", "flops_planned", "steps", "kept_bytes", "live_bytes")}


def beside_mars(found: dict[str, Any]) -> str:
    """What a change of MARS-Cache, or another cache, is worth, and whether so many questions can show it."""
    low, high = found["difference_low"], found["difference_high"]
    shown = f"{found['difference']:+.1f} ({low:+.1f} to {high:+.1f})"
    return shown if low > 0 or high < 0 else f"nothing shown: {shown}"


def table(data: dict[str, Any]) -> str:
    """Markdown: a line a contender."""
    lines = [
        "| | right | difference | 95 % | lost / gained | worst type | cross-frame | beside mars | same tokens | "
        "FLOPs saved |",
        "|---|---:|---:|---:|---:|---|---:|---|---:|---:|",
    ]
    for name, entry in data["contenders"].items():
        accuracy = entry["accuracy"]
        of, across = accuracy["all"], accuracy.get("cross-frame")
        types = {type: found for type, found in accuracy.items() if type not in ("all", "cross-frame")}
        worst = min(types, key=lambda type: types[type]["difference"])
        cells = [name, f"{100 * of['accuracy']:.2f} %", f"{of['difference']:+.2f}"]
        cells += [f"{of['difference_low']:+.2f} to {of['difference_high']:+.2f}", f"{of['lost']} / {of['gained']}"]
        cells += [
            f"{worst} {types[worst]['difference']:+.1f}" if name != "exact" else "-",
            f"{across['difference']:+.2f}" if across else "-",
        ]
        cells += ["-" if name in ("exact", "mars") else beside_mars(entry["beside_mars"])]
        cells += [f"{100 * entry['agreement']['tokens']:.1f} %", f"{entry['flops_saving']:.1f}x"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
