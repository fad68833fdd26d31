"""The 8B shape on one GPU: MARS-Cache eager, captured and compiled, and what it is compared with.

    python benchmarks/mars_speed_gpu.py [--rounds 3] [--budget 480] [--output benchmarks/mars_speed_gpu.json] [--quick]

Random bfloat16 weights of LLaDA-8B's shape, a video of 32 frames x 210 tokens and 40 tokens of text, 128 new tokens in
blocks of 32. Seven groups, the most important first; in each, set-ups take turns after one warm-up each:

1. "mars": one answer in 128, 64 and 32 steps, and a batch of 8 in 32.
2. "twin": transformers' Llama of the same shape, by its own `generate`, and with its decode in a CUDA graph.
3. "steps": how long each kind of step takes. The clock waits for the device after each step, which an answer does not.
4. "full recompute": with no cache as it is and compiled, and as the official code does it (a dense mask, the head on
   all tokens). 16 of the 128 equal steps are run, and multiplied.
5. "strategies": the others, in 32 steps.
6. "chunk attention": a refresh of 8 layers and the attention alone, with 32 to 256 frames.
7. "video file": where the time of one answer goes, from a file of a minute of 1080p on.

"eager" is `cuda_graphs=False`, "captured" the default, "compiled" `compile=True`. Beside the seconds stands the least
that the GPU needs for the operations and bytes, at the speed that it reaches in a large product and a large copy.

Each measurement is saved as it comes. An interrupted run goes on where it was; a group that would begin after the
budget (seconds) is left for the next run, and is named under "missing". Needs about 60 GB on the GPU; refused without
one, except with --quick (a tiny model, also on a CPU).
"""

import argparse
import gc
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))

from gpu_chunk_attention import measure_chunk_attention  # noqa: E402
from gpu_session import COMPILED_ONLY, QUICK, WAYS, Session, Size  # noqa: E402
from gpu_steps import time_steps  # noqa: E402
from gpu_twin import CapturedDecode, OwnGenerate, build_llama, floor  # noqa: E402
from gpu_video_file import measure_video_file  # noqa: E402

from vidlada_hf import DenoisingCache, FixedQuotaUnmasking  # noqa: E402
from vidlada_hf.evaluation.bench import describe_setup  # noqa: E402
from vidlada_hf.evaluation.cost_model import Machine  # noqa: E402
from vidlada_hf.evaluation.decoding import EXACT, DecodingRunner, DecodingSetup, EncodedBatch  # noqa: E402
from vidlada_hf.evaluation.measure import TimedDecoding, clock, measure_machine  # noqa: E402
from vidlada_hf.evaluation.random_model import build_random_model  # noqa: E402
from vidlada_hf.evaluation.record import Record  # noqa: E402

MARS = DecodingSetup("mars")


class DenseMask(DenoisingCache):
    """Everything, with a mask (batch, 1, tokens, tokens) that forbids nothing, and the head on all tokens."""

    def __init__(self, head: nn.Module) -> None:
        self.head = head

    def denoise(self, text_model: nn.Module, inputs_embeds: torch.Tensor, step: Any) -> torch.Tensor:
        assert self.layout is not None
        batch, tokens = inputs_embeds.shape[:2]
        mask = torch.ones(batch, 1, tokens, tokens, dtype=torch.bool, device=inputs_embeds.device)
        hidden = text_model(
            inputs_embeds=inputs_embeds, attention_mask=mask, position_ids=self.layout.position_ids
        ).last_hidden_state
        self.head(hidden)
        return hidden[:, step.span]


@dataclass(frozen=True)
class OfficialStyle(DecodingSetup):
    """`DenseMask` with one token a step."""

    head: Any = None

    def build(self) -> Any:
        return DenseMask(self.head), FixedQuotaUnmasking()


def answers(
    session: Session,
    group: str,
    name: str,
    setup: DecodingSetup,
    settings: dict[str, Any],
    steps: int,
    batch: int = 1,
    run: int = 0,
) -> tuple[str, Callable[[], dict[str, Any]]]:
    """A set-up of a group, to be timed: its name, and what runs it. What is known of it before is noted.

    Args:
        settings: of `generate`.
        batch: how many answers at a time.
        run: how many of the steps, which are all equal; 0: all.
    """
    runner, question = session.runner(steps, settings), session.question
    costs = session.planned_costs(runner, EXACT if run else setup, batch)
    session.results(group).setdefault(name, {}).update(
        batch=batch,
        steps=steps,
        steps_run=run or steps,
        tokens=batch * session.size.canvas,
        flops_planned=sum(cost.flops for cost in costs),
        floor_seconds=sum(cost.floor(session.machine) for cost in costs),
    )
    inputs = {key: value.repeat_interleave(batch, 0) for key, value in question.inputs.items()}
    repeated = EncodedBatch(inputs, question.features * batch)
    timed = TimedDecoding(runner, [repeated], setup, session.machine, run or None)

    def measure() -> dict[str, Any]:
        seconds, peak = timed.time()
        return {"seconds": seconds, "peak_bytes": peak or 0}

    return name, measure


def measure_mars(session: Session) -> None:
    """One answer in each number of steps, several in the fewest."""
    size = session.size
    settings = [(steps, 1) for steps in size.steps] + [(size.steps[-1], size.batch)]
    for steps, batch in settings:
        names = {way: f"{way}, {steps} steps" + (f", batch {batch}" if batch > 1 else "") for way in WAYS}
        runs = [answers(session, "mars", names[way], MARS, WAYS[way], steps, batch) for way in WAYS]
        session.time_in_turns("mars", dict(runs))


def measure_twin(session: Session) -> None:
    """Answers of as many tokens, after a prompt as long."""
    device, tokens = session.device, session.size.canvas
    length = session.question.inputs["input_ids"].shape[1]
    llama = build_llama(session.size.text, device, session.dtype)
    prompt = torch.randint(1, llama.config.vocab_size, (1, length), device=device)
    captured = CapturedDecode(llama, prompt, tokens)
    runs = {"own generate": OwnGenerate(llama, prompt, tokens).run, "prefill and captured decode": captured.run}
    for name in runs:
        least = floor(llama, length, tokens, session.machine)
        session.results("twin").setdefault(name, {}).update(batch=1, steps=tokens, tokens=tokens, floor_seconds=least)
    timed = {name: lambda run=run: {"seconds": clock(run, device)} for name, run in runs.items()}
    session.time_in_turns("twin", timed)


def measure_steps(session: Session) -> None:
    """Each kind of step of one answer in the most steps."""
    setup = DecodingSetup("mars", session.size.mars)

    def measure(runner: DecodingRunner, entry: dict[str, Any]) -> dict[str, Any]:
        measured = time_steps(runner, session.question, setup)
        entry["kept_bytes"] = measured["kept_bytes"]
        entry["steps"] = {kind: found["steps"] for kind, found in measured["kinds"].items()}
        return {kind: found["milliseconds"] for kind, found in measured["kinds"].items()}

    results, runs = session.results("steps"), {}
    for way in WAYS:
        runner, entry = session.runner(session.size.steps[0], WAYS[way]), results.setdefault(way, {})
        runs[way] = lambda runner=runner, entry=entry: measure(runner, entry)
    session.time_in_turns("steps", runs)


def measure_full_recompute(session: Session) -> None:
    """Some of the equal steps, multiplied. Not captured: so few steps would not pay for it, and launches are hidden."""
    official = OfficialStyle(head=session.model.lm_head)
    setups = {
        "as it is": (EXACT, WAYS["eager"]),
        "compiled": (EXACT, COMPILED_ONLY),
        "official style": (official, WAYS["eager"]),
    }
    steps, run = session.size.steps[0], session.size.exact_steps
    runs = [
        answers(session, "full recompute", name, setup, given, steps, run=run)
        for name, (setup, given) in setups.items()
    ]
    session.time_in_turns("full recompute", dict(runs))


def measure_strategies(session: Session) -> None:
    """The other strategies in the fewest steps."""
    steps = session.size.steps[-1]
    for strategy in ("dual", "prefix", "interval"):
        ways = ("eager", "captured")
        setup = DecodingSetup(strategy)
        runs = [answers(session, "strategies", f"{strategy}, {way}", setup, WAYS[way], steps) for way in ways]
        session.time_in_turns("strategies", dict(runs))


GROUPS: dict[str, Callable[[Session], None]] = {
    "mars": measure_mars,
    "twin": measure_twin,
    "steps": measure_steps,
    "full recompute": measure_full_recompute,
    "strategies": measure_strategies,
    "chunk attention": measure_chunk_attention,
    "video file": measure_video_file,
}


def start(options: argparse.Namespace, began: float) -> Session:
    """The model, and the file with what was measured before."""
    size = QUICK if options.quick else Size()
    device, dtype = torch.device("cuda" if torch.cuda.is_available() else "cpu"), torch.bfloat16
    model = build_random_model(size.text, device, dtype, grid=size.grid)
    lengths = {"max_new_tokens": size.canvas, "block_length": size.block, "max_denoising_steps": size.steps[0]}
    runner = DecodingRunner(model, None, size.frames, "canvas", lengths)
    setup = describe_setup(runner, "random weights" if options.quick else "random weights of the 8B shape") | {
        "tokens_per_frame": model.model.tokens_per_frame,
        "warm-up": "one run of each set-up, in which it compiles what it compiles; capturing is timed where `generate` "
        "captures anew",
        "twin": "the graph of its decode is captured before anything is timed; its prefill is timed",
        "steps": "the clock waits for the device after each step, which an answer does not; the first step holds what "
        "`generate` prepares",
        "full recompute": f"{size.exact_steps} of {size.steps[0]} equal steps were run; seconds and operations are "
        f"multiplied by {size.steps[0] / size.exact_steps:g}; not captured",
    }
    record = Record(options.output, setup)
    for name in ("groups", "finished"):
        record.data.setdefault(name, {})
    machine = Machine(**record.data.setdefault("machine", asdict(measure_machine(device, dtype, options.quick))))
    return Session(size, model, options.rounds, record, machine, began)


def measure_groups(session: Session, budget: float) -> None:
    """All groups that are not finished, as far as the budget (seconds) reaches."""
    for name, measure in GROUPS.items():
        if session.is_finished(name):
            continue
        if time.perf_counter() - session.began > budget:
            session.say(f"{name}: left for the next run")
            continue
        session.say(name)
        try:
            measure(session)
            session.finish(name)
        except Exception:  # the other groups of a lent machine's few minutes are not lost with it
            traceback.print_exc()
        gc.collect()  # models that only this group needed
        if session.device.type == "cuda":
            torch.cuda.empty_cache()
    session.record.data["missing"] = [name for name in GROUPS if not session.is_finished(name)]
    session.record.save()
    session.say(f"missing: {', '.join(session.record.data['missing']) or 'nothing'}")


def main(arguments: Sequence[str] | None = None) -> None:
    began = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--budget", type=float, default=480, help="seconds after which no group begins")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--quick", action="store_true", help="a tiny model, to see whether the script runs")
    options = parser.parse_args(arguments)
    if not (torch.cuda.is_available() or options.quick):
        raise SystemExit("This measures a GPU, and torch sees none (torch.cuda.is_available() is False).")
    measure_groups(start(options, began), options.budget)


if __name__ == "__main__":
    main()
