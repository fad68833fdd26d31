"""Sequences of any layout with random embeddings, and a slow but plain simulation of what a cache strategy does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache

import torch
from hypothesis import strategies as st
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from vidlada_hf.modeling.cache_vidlada import DenoisingCache, DenoisingStep, SequenceLayout, count_positions
from vidlada_hf.modeling.text_model_vidlada import VidLaDATextModel

from ..tiny_models import tiny_model


@dataclass(frozen=True)
class Prompt:
    """An example: text, frames of so many tokens each, text."""

    before: int
    frames: tuple[int, ...]
    after: int

    def frame_index(self) -> list[int]:
        visual = [i for i, tokens in enumerate(self.frames) for _ in range(tokens)]
        return [-1] * self.before + visual + [-1] * self.after


@dataclass(frozen=True)
class Case:
    """Some examples, a canvas in blocks, a suffix, and what every step sees.

    Args:
        active: for each step of each block, which examples have something to commit.
    """

    prompts: tuple[Prompt, ...]
    block: int
    active: tuple[tuple[tuple[bool, ...], ...], ...]
    suffix: int = 0

    @property
    def canvas(self) -> int:
        return self.block * len(self.active)

    @lru_cache(16)  # noqa: B019
    def layout(self) -> SequenceLayout:
        """Padded on the left."""
        frames = [prompt.frame_index() + [-1] * (self.canvas + self.suffix) for prompt in self.prompts]
        columns = max(map(len, frames))
        attended = torch.tensor([[0] * (columns - len(f)) + [1] * len(f) for f in frames])
        index = torch.tensor([[-1] * (columns - len(f)) + f for f in frames])
        mask = None if attended.all() else attended.bool()
        start = columns - self.canvas - self.suffix
        return SequenceLayout(count_positions(attended), mask, index, slice(start, start + self.canvas))

    @lru_cache(16)  # noqa: B019
    def steps(self) -> list[DenoisingStep]:
        """All steps in which some example is active."""
        start, steps = self.layout().canvas.start, []
        for number, block in enumerate(self.active):
            span = slice(start + number * self.block, start + (number + 1) * self.block)
            for i, active in enumerate(block):
                if any(active):
                    steps.append(DenoisingStep(len(steps), number, i, span, active))
        return steps

    def embeddings(self, step: DenoisingStep) -> torch.Tensor:
        """(batch, columns, 32), float64: random prompts and suffixes; each step changes the canvas up to its block."""
        layout, sequences = self.layout(), []
        for prompt in self.prompts:
            generator = torch.Generator().manual_seed(hash((prompt, 7)) % 2**31)
            length = len(prompt.frame_index())
            fixed = torch.randn(length + self.canvas + self.suffix, 32, generator=generator)
            for block in range(step.block + 1):
                last = step.step_in_block if block == step.block else 99
                generator.manual_seed(1000 * block + last)
                begin = length + block * self.block
                fixed[begin : begin + self.block] = torch.randn(self.block, 32, generator=generator)
            columns = layout.frame_index.shape[1]
            sequences.append(torch.cat([torch.full((columns - len(fixed), 32), 5.0), fixed]))
        return torch.stack(sequences).double()

    def alone(self, example: int) -> "Case":
        """One of the examples by itself."""
        active = tuple(tuple((step[example],) for step in block) for block in self.active)
        return replace(self, prompts=(self.prompts[example],), active=active)


@cache
def text_model() -> VidLaDATextModel:
    """Four layers of width 32 with weights that make every token matter.

    In float64: with such weights, sums in another order can differ by more than 1e-5 in float32 now and then.
    """
    return tiny_model().model.language_model.double()


@torch.no_grad()
def run(strategy: DenoisingCache, case: Case) -> list[torch.Tensor]:
    """(batch, block, 32) for each step."""
    strategy.check(text_model().config, case.layout())
    strategy.begin(case.layout())
    try:
        return [strategy.denoise(text_model(), case.embeddings(step), step) for step in case.steps()]
    finally:
        strategy.end()


def assert_same(results: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], case: Case) -> None:
    """The same hidden states at all tokens that a step wants."""
    assert len(results) == len(expected) == len(case.steps())
    for result, reference, step in zip(results, expected, case.steps(), strict=True):
        active = torch.tensor(step.active)
        torch.testing.assert_close(result[active], reference[active], atol=1e-5, rtol=1e-5)


def assert_each_gets_what_it_gets_alone(build: Callable[[], DenoisingCache], case: Case) -> None:
    """Every example of the batch, in every step in which it is active."""
    together = run(build(), case)
    for example in range(len(case.prompts)):
        alone = run(build(), case.alone(example))
        own = [h[example : example + 1] for h, s in zip(together, case.steps(), strict=True) if s.active[example]]
        assert_same(own, alone, case.alone(example))


@torch.no_grad()
def simulate(
    case: Case,
    recomputed: Callable[[DenoisingStep], torch.Tensor],
    visible: Callable[[DenoisingStep], torch.Tensor] = lambda step: torch.tensor(True),
) -> list[torch.Tensor]:
    """What one example gets if each layer recomputes just the given tokens, from what entered it last.

    Args:
        recomputed: step -> (layers, columns), bool.
        visible: step -> (columns, columns), bool, the keys that each row sees.
    """
    model, layout, results = text_model(), case.layout(), []
    entered = [torch.zeros(layout.frame_index.shape[1], 32) for _ in range(len(model.layers) + 1)]
    keys, values = {}, {}
    cos, sin = model.rotary_emb(entered[0][None], layout.position_ids)
    for step in case.steps():
        entered[0] = case.embeddings(step)[0]
        for i, layer in enumerate(model.layers):
            attention, tokens = layer.self_attn, recomputed(step)[i]
            normed = layer.input_layernorm(entered[i])[None]
            query, key, value = (
                project(normed).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
                for project in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            query, key = apply_rotary_pos_emb(query, key, cos, sin)
            here = tokens[:, None]
            keys[i] = torch.where(here, key, keys.get(i, key))
            values[i] = torch.where(here, value, values.get(i, value))
            scores = (query @ keys[i].transpose(2, 3) * attention.scaling).masked_fill(~visible(step), -torch.inf)
            attended = (scores.softmax(-1) @ values[i]).transpose(1, 2).flatten(2)[0]
            hidden = entered[i] + attention.o_proj(attended)
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
            entered[i + 1] = torch.where(here, hidden, entered[i + 1])
        results.append(model.norm(entered[-1][step.span])[None])
    return results


@st.composite
def cases(draw: st.DrawFn, batch: int = 3, most_frames: int = 5, inactive: bool = True, equal: bool = True) -> Case:
    """Random ones. `equal`: all frames of an example have as many tokens."""
    prompts = []
    for _ in range(draw(st.integers(1, batch))):
        count, tokens = draw(st.integers(0, most_frames)), draw(st.integers(2, 4))
        sizes = [tokens if equal else draw(st.integers(2, 4)) for _ in range(count)]
        prompts.append(Prompt(draw(st.integers(0, 4)), tuple(sizes), draw(st.integers(1, 4))))
    steps = draw(st.integers(2, 5))
    active = []
    for _ in range(draw(st.integers(1, 3))):
        lasts = [draw(st.integers(0, steps)) if inactive else steps for _ in prompts]
        active.append(tuple(tuple(i < last for last in lasts) for i in range(steps)))
    return Case(tuple(prompts), draw(st.integers(1, 4)), tuple(active), draw(st.integers(0, 2)))


def plain_case(
    frames: int = 4, tokens: int = 3, block: int = 2, blocks: int = 2, steps: int = 4, suffix: int = 1
) -> Case:
    """One example, always active."""
    return Case((Prompt(2, (tokens,) * frames, 3),), block, (((True,),) * steps,) * blocks, suffix)
