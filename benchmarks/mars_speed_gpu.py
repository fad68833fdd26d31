"""The 8B shape on one GPU: recomputing everything, each cache strategy, and an autoregressive model of the same shape.

    python benchmarks/mars_speed_gpu.py [--rounds 5] [--output benchmarks/mars_speed_gpu.json] [--quick]

Random bfloat16 weights of LLaDA-8B's shape, a video of 32 frames x 210 tokens and 40 tokens of text, 128 new tokens in
128 steps, blocks of 32, one token a step. Runs take turns. "official style" recomputes everything with a dense mask and
runs the head on all tokens, as the official code does. The autoregressive model is transformers' Llama, which generates
128 tokens after a prompt as long with its own `generate`. Beside each stands the least that the GPU needs for its
operations and bytes, at the speed that it reaches in a large product and a large copy. Of the two that recompute
everything, 16 of the 128 equal steps are run, and multiplied; the JSON says so. An interrupted run goes on where it
was.

Needs about 40 GB on the GPU; refused without one, except with --quick (a tiny model, also on a CPU).
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from vidlada_hf import FixedQuotaUnmasking, NoCache, VidLaDATextConfig
from vidlada_hf.evaluation.bench import describe_setup, measure_costs
from vidlada_hf.evaluation.cost_model import LayerWork, Machine, StepCost, TextShape
from vidlada_hf.evaluation.decoding import EXACT, DecodingSetup
from vidlada_hf.evaluation.flops import count_flops
from vidlada_hf.evaluation.measure import TimedDecoding, clock, measure_machine
from vidlada_hf.evaluation.memory import PeakMemory
from vidlada_hf.evaluation.random_model import (
    TINY_TEXT,
    build_random_model,
    encode_random_question,
    full_canvas_runner,
)
from vidlada_hf.evaluation.record import Record
from vidlada_hf.evaluation.report import costs_table

FRAMES, CANVAS, BLOCK, EXACT_STEPS = 32, 128, 32, 16
STRATEGIES = {
    "mars": DecodingSetup("mars"),
    "mars, first step chunked": DecodingSetup("mars", {"first_step": "chunked"}),
    "dual": DecodingSetup("dual"),
    "prefix": DecodingSetup("prefix"),
    "interval": DecodingSetup("interval"),
}


class DenseMask(NoCache):
    """Everything, with a mask (batch, 1, tokens, tokens) that forbids nothing, and the head on all tokens."""

    def __init__(self, head: nn.Module) -> None:
        self.head = head

    def denoise(self, text_model: nn.Module, inputs_embeds: torch.Tensor, step: Any) -> torch.Tensor:
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


@dataclass(frozen=True)
class Autoregression:
    """Llama with transformers' own `generate`."""

    model: LlamaForCausalLM
    prompt: torch.Tensor
    tokens: int
    machine: Machine

    def run(self) -> None:
        """One answer; none ends early."""
        self.model.generate(
            self.prompt, max_new_tokens=self.tokens, min_new_tokens=self.tokens, do_sample=False, pad_token_id=0
        )

    def count(self) -> dict[str, Any]:
        return {"flops": count_flops(self.run), "floor_seconds": self.floor(), "tokens": self.tokens}

    def floor(self) -> float:
        """Seconds: a causal prefill, then one token at a time; weights and keys are read each time."""
        shape, prompt = TextShape.of(self.model.config), self.prompt.shape[1]
        size = self.model.dtype.itemsize
        weights = shape.layers * shape.layer_parameters + shape.hidden * shape.vocabulary
        per_token = 2 * shape.layers * shape.key_value_heads * shape.head_dim
        work = [LayerWork(prompt, prompt * (prompt + 1) // 2)]
        work += [LayerWork(1, prompt + i) for i in range(1, self.tokens)]
        head = 2 * shape.hidden * shape.vocabulary
        return sum(
            StepCost(shape.layers * w.flops(shape) + head, size * (weights + per_token * (prompt + i))).floor(
                self.machine
            )
            for i, w in enumerate(work)
        )

    def time(self) -> tuple[float, int | None]:
        with PeakMemory(self.model.device) as peak:
            seconds = clock(self.run, self.model.device)
        return seconds, peak.bytes


def build_llama(text: dict[str, Any], device: torch.device, dtype: torch.dtype) -> LlamaForCausalLM:
    """The same shape, causal."""
    shape = VidLaDATextConfig(**({"eos_token_id": None, "pad_token_id": None, "bos_token_id": None} | text))
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    fields = {name: getattr(shape, name) for name in (*names, "max_position_embeddings", "rms_norm_eps")}
    config = LlamaConfig(**fields, eos_token_id=None, bos_token_id=None, pad_token_id=None)
    with torch.device(device):
        return LlamaForCausalLM._from_config(config, dtype=dtype).eval()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--quick", action="store_true", help="a tiny model, to see whether the script runs")
    options = parser.parse_args(arguments)
    has_gpu, quick = torch.cuda.is_available(), options.quick
    if not (has_gpu or quick):
        raise SystemExit("This measures a GPU, and torch sees none (torch.cuda.is_available() is False).")

    device, dtype = torch.device("cuda" if has_gpu else "cpu"), torch.bfloat16
    text = TINY_TEXT if quick else {}
    frames, canvas, block, exact_steps = (4, 8, 4, 2) if quick else (FRAMES, CANVAS, BLOCK, EXACT_STEPS)
    model = build_random_model(text, device, dtype, grid=4 if quick else 27)
    runner, batch = full_canvas_runner(model, frames, canvas, block), encode_random_question(model, frames)
    prompt_tokens = batch.inputs["input_ids"].shape[1]
    setup = describe_setup(runner, "random weights of the 8B shape" if not quick else "random weights") | {
        "tokens_per_frame": model.model.tokens_per_frame,
        "prompt_tokens": prompt_tokens,
        "full recompute, official style": f"{exact_steps} of {canvas} equal steps were run; seconds and operations are "
        f"multiplied by {canvas / exact_steps:g}",
    }
    record = Record(options.output, setup)
    machine = Machine(**record.data.setdefault("machine", asdict(measure_machine(device, dtype, quick))))
    prompt = torch.randint(1, text.get("vocab_size", 126464), (1, prompt_tokens), device=device)
    official = OfficialStyle(head=model.lm_head)
    runs = {
        "full recompute": TimedDecoding(runner, [batch], EXACT, machine, exact_steps),
        "official style": TimedDecoding(runner, [batch], official, machine, exact_steps),
        **{name: TimedDecoding(runner, [batch], strategy, machine) for name, strategy in STRATEGIES.items()},
        "autoregressive Llama": Autoregression(build_llama(text, device, dtype), prompt, canvas, machine),
    }
    results = record.data.setdefault("results", {})
    rounds = 1 if quick else options.rounds
    measure_costs(runs, "full recompute", rounds, results, record.save, warm_up=has_gpu)
    print(costs_table(results))


if __name__ == "__main__":
    main()
