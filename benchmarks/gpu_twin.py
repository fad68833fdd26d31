"""An autoregressive model of the same shape: transformers' Llama, by its own `generate` and by a captured decode."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, StaticCache

from vidlada_hf import VidLaDATextConfig
from vidlada_hf.evaluation.cost_model import LayerWork, Machine, StepCost, TextShape


def build_llama(text: dict[str, Any], device: torch.device, dtype: torch.dtype) -> LlamaForCausalLM:
    """The shape that `text`, fields of `VidLaDATextConfig`, says, causal, with random weights."""
    shape = VidLaDATextConfig(**({"eos_token_id": None, "pad_token_id": None, "bos_token_id": None} | text))
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    fields = {name: getattr(shape, name) for name in (*names, "max_position_embeddings", "rms_norm_eps")}
    config = LlamaConfig(**fields, eos_token_id=None, bos_token_id=None, pad_token_id=None)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.device(device):
        torch.manual_seed(0)
        return LlamaForCausalLM._from_config(config, dtype=dtype).eval()


@dataclass(frozen=True)
class OwnGenerate:
    """transformers' `generate`, as it is."""

    model: LlamaForCausalLM
    prompt: torch.Tensor
    tokens: int

    @torch.no_grad()
    def run(self) -> torch.Tensor:
        """(1, tokens), int64: a greedy answer that does not end early."""
        lengths = {"max_new_tokens": self.tokens, "min_new_tokens": self.tokens}
        sequences = self.model.generate(self.prompt, **lengths, do_sample=False, pad_token_id=0)
        return sequences[:, self.prompt.shape[1] :]


class CapturedDecode:
    """A prefill, then one greedy token a step, replayed from a CUDA graph over a static cache; eager on a CPU.

    A step reads the token and the position from buffers, and writes the next ones there, so that nothing waits for the
    device before the answer is there. Capturing, which an answer would pay for once, is done here.

    Args:
        prompt: (1, tokens), int64.
        tokens: of the answer.
    """

    @torch.no_grad()
    def __init__(self, model: LlamaForCausalLM, prompt: torch.Tensor, tokens: int) -> None:
        self.model, self.prompt = model, prompt
        self.cache = StaticCache(config=model.config, max_cache_len=prompt.shape[1] + tokens)
        self.token, self.position = torch.zeros_like(prompt[:, :1]), torch.zeros_like(prompt[:, :1])
        self.answer, self.column = prompt.new_zeros(1, tokens), prompt.new_zeros(1)
        self.replay = self.step
        if prompt.device.type == "cuda":
            self.replay = self._capture()

    def _capture(self) -> Any:
        """A function that replays `step`."""
        self.prefill()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # as torch asks for: libraries set themselves up in the first
                self.step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        return graph.replay

    @torch.no_grad()
    def run(self) -> torch.Tensor:
        """(1, tokens), int64: the answer, in a buffer that the next run writes to."""
        self.prefill()
        for _ in range(self.answer.shape[1] - 1):
            self.replay()
        return self.answer

    def prefill(self) -> None:
        """Computes the prompt, and the first token of the answer."""
        self.cache.reset()
        self.column.zero_()
        self.position.fill_(self.prompt.shape[1])
        self._take(self.model(self.prompt, past_key_values=self.cache, logits_to_keep=1).logits)

    def step(self) -> None:
        """Computes the next token from the last."""
        inputs = {"past_key_values": self.cache, "position_ids": self.position}
        self._take(self.model(self.token, **inputs, logits_to_keep=1).logits)
        self.position.add_(1)

    def _take(self, logits: torch.Tensor) -> None:
        """Writes down the most probable token of (1, 1, vocabulary)."""
        self.token.copy_(logits[:, -1:].argmax(-1))
        self.answer.index_copy_(1, self.column, self.token)
        self.column.add_(1)


def floor(model: LlamaForCausalLM, prompt: int, tokens: int, machine: Machine) -> float:
    """Seconds that an answer takes at least: a causal prefill, then a token at a time; weights and keys are read each
    time."""
    shape, size = TextShape.of(model.config), model.dtype.itemsize
    weights = shape.layers * shape.layer_parameters + shape.hidden * shape.vocabulary
    per_token = 2 * shape.layers * shape.key_value_heads * shape.head_dim
    work = [LayerWork(prompt, prompt * (prompt + 1) // 2)]
    work += [LayerWork(1, prompt + i) for i in range(1, tokens)]
    head = 2 * shape.hidden * shape.vocabulary
    steps = (
        StepCost(shape.layers * each.flops(shape) + head, size * (weights + per_token * (prompt + i)))
        for i, each in enumerate(work)
    )
    return sum(step.floor(machine) for step in steps)


__all__ = ["CapturedDecode", "OwnGenerate", "build_llama", "floor"]
