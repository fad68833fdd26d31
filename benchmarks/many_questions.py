"""One video, many questions: what one more costs, and choices judged by score instead of by generation.

    python benchmarks/many_questions.py speed [--threads 2] [--quick]      # 15 minutes on two idle cores
    python benchmarks/many_questions.py choices [--questions 210] [--quick]  # 20 minutes on one

`speed` is measured on the CPU set-up of `mars_speed_cpu.py`: random weights, 32 frames x 210 tokens, the video's
features given. An answer is two tokens in two steps, as in the official evaluation. In each round one answer from
scratch, then what a shared video costs: the first answer (its keys and values, and the question), one more question
after another, 19 more in one batch. `choices` are the embedded checkpoint's multiple-choice questions at 8 frames,
judged by generation and by the score of the letters (one forward pass), each with and without a shared video; and, with
a shared video alone, by the score of the letters with their options (32 draws of masks for each length). An interrupted
run goes on where it was.
"""

import argparse
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from moving_shapes import MovingShapes
from vidlada_hf.evaluation.bench import describe_setup
from vidlada_hf.evaluation.decoding import DecodingRunner, prepare_inputs
from vidlada_hf.evaluation.measure import clock
from vidlada_hf.evaluation.questions import is_right
from vidlada_hf.evaluation.random_model import (
    SMALL_TEXT,
    TEXT_TOKENS,
    TINY_TEXT,
    build_random_model,
    encode_random_question,
    full_canvas_runner,
)
from vidlada_hf.evaluation.record import Record
from vidlada_hf.evaluation.statistics import compare_right

FRAMES, ROUNDS, QUESTIONS, MORE = 32, 5, 20, 5
TWO_STEPS = {"max_new_tokens": 2, "block_length": 2, "max_denoising_steps": 2}
GENERATION = {"max_new_tokens": 64, "block_length": 32}
OPTION = re.compile(r"\(([a-d])\) (\w+)", re.IGNORECASE)
CPU = torch.device("cpu")


# --- what one more question costs ------------------------------------------------------------------------------------


def other_questions(input_ids: torch.Tensor, vocabulary: int, count: int) -> torch.Tensor:
    """(count, tokens): the same video, and other words behind it."""
    words = torch.randint(0, vocabulary - 1, (count, TEXT_TOKENS // 2), generator=torch.Generator().manual_seed(1))
    return torch.cat([input_ids[:, : -TEXT_TOKENS // 2].expand(count, -1), words], dim=1)


def time_round(model: Any, batch: Any, count: int) -> dict[str, float]:
    """Seconds of each way to answer, one after the other."""
    inputs, features = batch.inputs, batch.features
    ids = other_questions(inputs["input_ids"], model.config.text_config.vocab_size, count)
    kept: dict[str, Any] = {}

    def answer(which: torch.Tensor) -> Callable[[], Any]:
        return lambda: model.generate(which, video_cache=kept["cache"], **TWO_STEPS)

    def first() -> None:
        kept["cache"] = model.encode_video(**inputs, video_features=features)
        answer(ids[:1])()

    seconds = {"from scratch": clock(lambda: model.generate(**inputs, video_features=features, **TWO_STEPS), CPU)}
    seconds["first"] = clock(first, CPU)
    seconds["one more"] = statistics.median(
        clock(answer(ids[i : i + 1]), CPU) for i in range(1, min(MORE, count - 1) + 1)
    )
    seconds["all others in a batch"] = clock(answer(ids[1:]), CPU)
    return seconds


def measure_speed(record: Record, quick: bool) -> dict[str, Any]:
    """Rounds and ratios, which stay in the record."""
    model = build_random_model(TINY_TEXT if quick else SMALL_TEXT, CPU, torch.float32, grid=4 if quick else 27)
    frames = 4 if quick else FRAMES
    batch, results = encode_random_question(model, frames), record.data["speed"]
    results["setup"] = describe_setup(full_canvas_runner(model, frames, 2, 2), "random weights")
    results["setup"]["videos"] = "features given; keys and values where shared, timed as part of the first answer"
    rounds = results.setdefault("rounds", [])
    time_round(model, batch, 2)  # warm up
    for _ in tqdm(range(len(rounds), 2 if quick else ROUNDS), desc="speed", unit="round"):
        rounds.append({name: float(f"{s:.4g}") for name, s in time_round(model, batch, QUESTIONS).items()})
        record.save()
    scratch, first, more, others = (
        [each[name] for each in rounds] for name in ("from scratch", "first", "one more", "all others in a batch")
    )
    median = statistics.median
    results["summary"] = {
        "seconds": {name: median(each[name] for each in rounds) for name in rounds[0]},
        "one more / the first": round(median(m / f for m, f in zip(more, first, strict=True)), 4),
        f"{QUESTIONS} one by one / {QUESTIONS} from scratch": round(
            median((f + (QUESTIONS - 1) * m) / (QUESTIONS * s) for f, m, s in zip(first, more, scratch, strict=True)), 4
        ),
        f"{QUESTIONS}, all others in a batch / {QUESTIONS} from scratch": round(
            median((f + o) / (QUESTIONS * s) for f, o, s in zip(first, others, scratch, strict=True)), 4
        ),
        "from scratch": f"one was timed in each round; {QUESTIONS} are so many times as much",
    }
    return results["summary"]


# --- choices by score ------------------------------------------------------------------------------------------------


def judge(runner: DecodingRunner, question: Any, right: str) -> dict[str, Any]:
    """Whether each way is right about a question, and its seconds."""
    model, processor = runner.model, runner.processor
    inputs = prepare_inputs(processor, [question], runner.num_frames).to(model.device, model.dtype)
    pixels, counts = inputs.pop("pixel_values_videos"), inputs["num_frames_per_video"]
    features = model.get_video_features(pixels, counts, return_dict=True).pooler_output
    cache = model.encode_video(**inputs, video_features=features)
    options = [(f"({letter.lower()})", option) for letter, option in OPTION.findall(question.question)]
    letters, texts = [letter for letter, _ in options], [" ".join(option) for option in options]
    found: dict[str, Any] = {}

    def generate(arguments: dict[str, Any]) -> bool:
        output = model.generate(**inputs, **arguments, **GENERATION)
        text = processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return bool(is_right(question, text))

    def score(arguments: dict[str, Any], choices: list[str]) -> bool:
        scores = model.score_choices(**inputs, **arguments, choices=choices, tokenizer=processor.tokenizer)
        return letters[int(scores[0].argmax())] == right

    for video, arguments in (("", {"video_features": features}), (", shared video", {"video_cache": cache})):
        ways: dict[str, Callable[[], bool]] = {
            "generation": lambda given=arguments: generate(given),
            "letters": lambda given=arguments: score(given, letters),
        }
        if video:
            ways["letters with options"] = lambda given=arguments: score(given, texts)
        for name, way in ways.items():
            verdicts: list[bool] = []
            seconds = clock(lambda way=way, verdicts=verdicts: verdicts.append(way()), CPU)
            found[name + video] = [verdicts[0], round(seconds, 4)]
    return found


def measure_choices(record: Record, count: int) -> dict[str, Any]:
    """Questions and shares of right answers, which stay in the record while the weights are the same."""
    runner = DecodingRunner.from_pretrained(None, 8, settings=GENERATION)
    setup = describe_setup(runner, "vidlada-tiny")
    setup["videos"] = "features, or keys and values, are there before a way is timed"
    if record.data["choices"].get("setup", {}).get("weights") != setup["weights"]:
        record.data["choices"] = {}
    results, examples = record.data["choices"], MovingShapes("test", count, 8, ("choice",))
    results["setup"] = setup
    answers = results.setdefault("answers", [])
    for i in tqdm(range(len(answers), count), desc="choices", unit="question"):
        example = examples[i]
        answers.append(judge(runner, example.as_question(), example.answer))
        if len(answers) % 20 == 0 or len(answers) == count:
            record.save()
    results["summary"] = {}
    for name in answers[0]:
        asked = [answer for answer in answers if name in answer]
        right, generated = ([answer[way][0] for answer in asked] for way in (name, "generation"))
        ratios = [answer["generation"][1] / answer[name][1] for answer in asked]
        results["summary"][name] = asdict(compare_right(right, generated)) | {
            "seconds": statistics.median(answer[name][1] for answer in asked),
            "times as fast as generation": round(statistics.median(ratios), 2),
        }
    return results["summary"]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["speed", "choices"])
    parser.add_argument("--questions", type=int, default=210, help="of `choices`")
    parser.add_argument("--threads", type=int, help="2 for `speed`, 1 for `choices` by default")
    parser.add_argument("--quick", action="store_true", help="a tiny model, few questions: to see whether it runs")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads or {"speed": 2, "choices": 1}[options.part])
    record = Record(options.output, {})
    record.data.setdefault(options.part, {})
    if options.part == "speed":
        summary = measure_speed(record, options.quick)
    else:
        summary = measure_choices(record, 4 if options.quick else options.questions)
    record.save()
    for name, value in summary.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
