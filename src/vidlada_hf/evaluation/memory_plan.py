"""What answering needs of a GPU's memory, counted before any weights are loaded: `vidlada plan`.

The model is built on torch's meta device, where tensors have shapes and no memory. There a video is encoded, and the
first two steps of an answer run as on a GPU, while `LiveBytes` counts the bytes of the tensors that are alive at once.
The first step computes all tokens, so that none behind it needs more. Steps like the second are captured in CUDA
graphs, which compute in memory of their own; of quantized models none are.

Not counted are CUDA and its libraries, what lies unused between tensors (`RESERVED` is left free for both), what single
kernels need inside, and padding.
"""

import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product as pairs
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..modeling.arguments_vidlada import check_choice
from ..modeling.cache_strategies_vidlada import CACHE_STRATEGIES, resolve_cache_strategy
from ..modeling.cache_vidlada import DenoisingCache, DenoisingStep, SequenceLayout, cache_session
from ..modeling.canvas_vidlada import RandomSource, sample_tokens
from ..modeling.configuration_vidlada import VidLaDAConfig
from ..modeling.generation_config_vidlada import VidLaDAGenerationConfig
from ..modeling.modeling_vidlada import VidLaDAForConditionalGeneration
from ..setting_names import parse_cache
from .memory import LiveBytes
from .report import text_table

GB = 10**9
RESERVED = GB
MOST_QUESTIONS = 64
FRAMES_AT_A_TIME = 16  # `vision_batch_size` of `generate`
META = torch.device("meta")

# Modules whose matrices are not quantized: their names from the beginning, as in docs/quantization.md.
KEPT_WHOLE = ("model.vision_tower", "model.multi_modal_projector", "lm_head")


# --- precisions ------------------------------------------------------------------------------------------------------


Product = Callable[[nn.Linear, torch.Tensor], torch.Tensor]


def read_matrix(layer: nn.Linear, states: torch.Tensor) -> torch.Tensor:
    """A product with a matrix that is first written out in the type that is computed in; then come the scales."""
    return F.linear(states, layer.weight.clone(), layer.bias) * 1


def sum_integers(layer: nn.Linear, states: torch.Tensor) -> torch.Tensor:
    """A product of int8 numbers, rounded from float16, whose sums are int32."""
    half = states.to(torch.float16, copy=True)
    codes = half.to(torch.int8)
    sums = codes.new_empty(*half.shape[:-1], layer.out_features, dtype=torch.int32)
    return sums.to(states.dtype)


@dataclass(frozen=True)
class Precision:
    """How the matrices of the text model's layers are stored.

    Args:
        dtype: of all other weights, and of what is computed.
        matrix_bytes: rows, columns -> bytes of a matrix; None: they are stored in `dtype` too.
        product: (layer, states) -> result, with the memory that it takes to multiply by such a matrix.
    """

    dtype: torch.dtype
    matrix_bytes: Callable[[int, int], int] | None = None
    product: Product | None = None


# torchao keeps a float32 scale for each row (and for int8 a zero point), bitsandbytes one for each row (int8) or for
# every 64 weights (nf4). nf4 is multiplied as it is where there are few tokens, and else written out first.
PRECISIONS = {
    "float32": Precision(torch.float32),
    "bfloat16": Precision(torch.bfloat16),
    "int8": Precision(torch.bfloat16, lambda rows, columns: rows * (columns + 5), read_matrix),
    "float8": Precision(torch.bfloat16, lambda rows, columns: rows * (columns + 4), read_matrix),
    "bnb-int8": Precision(torch.bfloat16, lambda rows, columns: rows * (columns + 4), sum_integers),
    "bnb-nf4": Precision(torch.bfloat16, lambda rows, columns: -(-rows * columns // 64) * (32 + 4), read_matrix),
}
USUAL_PRECISIONS = ("bfloat16", "int8", "bnb-nf4")


class PlannedLinear(nn.Linear):
    """A linear layer whose matrix is quantized in the plan."""

    product: Product

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(..., columns) -> (..., rows)."""
        return self.product(self, states)


def attend_in_shape(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **_: Any
) -> tuple[torch.Tensor, None]:
    """What flash attention holds: the result, (batch, queries, heads, head_dim), and a float32 for each of its heads'
    queries."""
    weights = query.new_empty(query.shape[:-1], dtype=torch.float32)
    return torch.empty_like(query).transpose(1, 2) if weights.numel() else query, None


SHAPES_ONLY = "vidlada_shapes_only"
ALL_ATTENTION_FUNCTIONS.register(SHAPES_ONLY, attend_in_shape)


# --- counting --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Workload:
    """What is asked.

    Args:
        frames: of each video.
        batch_size: questions at a time.
        text_tokens: of a prompt.
        max_new_tokens, block_length: of the canvas.
    """

    frames: int = 32
    batch_size: int = 1
    text_tokens: int = 40
    max_new_tokens: int = 128
    block_length: int | None = None

    def layout(self, tokens_per_frame: int) -> SequenceLayout:
        """Text, video and canvas of all examples. The frames' numbers are on the CPU, where strategies read them."""
        visual = torch.arange(self.frames).repeat_interleave(tokens_per_frame)
        text, canvas = torch.full((self.text_tokens,), -1), torch.full((self.max_new_tokens,), -1)
        frame_index = torch.cat([text, visual, canvas]).expand(self.batch_size, -1)
        positions = torch.empty(frame_index.shape, dtype=torch.long, device=META)
        return SequenceLayout(positions, None, frame_index, slice(len(text) + len(visual), frame_index.shape[1]))

    def first_steps(self, start: int) -> list[DenoisingStep]:
        """The first two steps, of a canvas that starts there.

        Raises:
            ValueError: the blocks do not divide the canvas.
        """
        settings = VidLaDAGenerationConfig(max_new_tokens=self.max_new_tokens, block_length=self.block_length)
        steps = settings.planned_steps()[:2]
        return [replace(step, span=slice(start + step.span.start, start + step.span.stop)) for step in steps]


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes at the peak, besides weights.

    Args:
        kept: what the cache strategy holds from its first step to its last: keys and values, and what else it stores.
        working: what else is alive then: pixels, embeddings, activations, logits.
        graphs: what captured steps compute in.
    """

    kept: int
    working: int
    graphs: int

    @property
    def total(self) -> int:
        """Of all three."""
        return self.kept + self.working + self.graphs


class MemoryPlan:
    """Counts what a model of some shape needs besides its weights.

    Args:
        config: of the model.
        dtype, product: of a `Precision`; the bytes that its matrices take make no difference here.
    """

    def __init__(self, config: VidLaDAConfig, dtype: torch.dtype, product: Product | None = None) -> None:
        self.dtype, self.is_plain = dtype, product is None
        self.model: Any = build_skeleton(config, dtype)
        for part in (self.model.model.language_model, self.model.model.vision_tower):
            part.config._attn_implementation = SHAPES_ONLY
        for layer in () if product is None else quantized_layers(self.model):
            layer.__class__, layer.product = PlannedLinear, product
        # What a layer of the tower needs is freed before the next: one needs as much as all.
        del self.model.model.vision_tower.encoder.layers[1:]

    @torch.no_grad()
    def count(self, cache: DenoisingCache, workload: Workload) -> MemoryNeed:
        """What a batch needs.

        Raises:
            ValueError: an impossible canvas; or the strategy cannot serve this model or this video.
        """
        layout, text_config = workload.layout(self.model.model.tokens_per_frame), self.model.config.text_config
        captures = self.is_plain and vars(type(cache)).get("captures", False)
        steps = workload.first_steps(layout.canvas.start)[: 1 + captures]
        cache.check(text_config, layout)
        size = (*layout.position_ids.shape, text_config.hidden_size)
        with LiveBytes() as live, cache_session(cache, layout):
            pixels, encoding = self._encode(live, workload.batch_size * workload.frames)
            embeddings, prompts = (torch.empty(size, dtype=self.dtype, device=META) for _ in range(2))
            before, needs = live.now, []
            for step in steps:
                start = live.peak = live.now
                self._denoise(cache, embeddings, step)
                needs.append(live.peak - start)
            kept = live.now - before
            del pixels, prompts
        return MemoryNeed(kept, max(encoding, before + needs[0]) - kept, sum(needs[1:]))

    def _encode(self, live: LiveBytes, frames: int) -> tuple[torch.Tensor, int]:
        """The pixels of so many frames, which the caller of `generate` holds; and the peak while they are encoded."""
        side = self.model.config.vision_config.image_size
        pixels = torch.empty(frames, 3, side, side, dtype=self.dtype, device=META)
        if not frames:
            return pixels, 0
        chunk = pixels[:FRAMES_AT_A_TIME]
        start = live.peak = live.now
        outputs = self.model.get_video_features(chunk)
        encoded = (live.now - start) * -(-frames // len(chunk))  # of all frames; they are joined in the end
        peak = live.now + encoded + max(live.peak - live.now, encoded)
        del outputs
        return pixels, peak

    def _denoise(self, cache: DenoisingCache, embeddings: torch.Tensor, step: DenoisingStep) -> None:
        """A step, up to the tokens that it chooses."""
        hidden_states = cache.denoise(self.model.model.language_model, embeddings, step)
        logits = self.model.lm_head(hidden_states).float()
        logits = logits.index_fill(-1, torch.empty(1, dtype=torch.long, device=META), -torch.inf)
        batch = len(embeddings)
        sample_tokens(logits, VidLaDAGenerationConfig(), RandomSource(None, None, batch, META), (True,) * batch)


def build_skeleton(config: VidLaDAConfig, dtype: torch.dtype) -> VidLaDAForConditionalGeneration:
    """The model on the meta device, with a config of its own."""
    with META:
        return VidLaDAForConditionalGeneration(copy.deepcopy(config)).to(dtype).eval()  # type: ignore[arg-type]


def quantized_layers(model: nn.Module) -> list[Any]:
    """The layers whose matrices are quantized."""
    modules = model.named_modules()
    return [each for name, each in modules if isinstance(each, nn.Linear) and not name.startswith(KEPT_WHOLE)]


def count_weights(config: VidLaDAConfig, precision: Precision) -> int:
    """Bytes of all weights of a model."""
    model = build_skeleton(config, precision.dtype)
    size = sum(weight.nbytes for weight in model.parameters())
    if precision.matrix_bytes is None:
        return size
    weights = [layer.weight for layer in quantized_layers(model)]
    return size + sum(precision.matrix_bytes(*weight.shape) - weight.nbytes for weight in weights)


def largest_batch(count: Callable[[int], int], memory: int) -> int:
    """The most questions at a time that so many bytes hold, up to `MOST_QUESTIONS`; 0: not even one.

    Args:
        count: bytes that a batch of some size needs; it grows, and no slower the larger the batch.
    """
    if (one := count(1)) > memory:
        return 0
    size = min(1 + (memory - one) // (count(2) - one), MOST_QUESTIONS)
    while count(size) > memory:
        size -= 1
    return size


# --- as text ---------------------------------------------------------------------------------------------------------


def parse_bytes(text: str) -> int:
    """Bytes, from what is typed: "24GB" (10^9), "24GiB" (2^30), or "24", which is GiB.

    Raises:
        ValueError: anything else, or nothing above 0.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(GB|GiB|G)?\s*", text, re.IGNORECASE)
    size = round(float(found[1]) * (GB if (found[2] or "").upper() == "GB" else 1 << 30)) if found else 0
    if size <= 0:
        raise ValueError(f"{text!r} is no amount of memory: write 24GB (10^9 bytes), or 24GiB (2^30).")
    return size


def plan_table(
    config: VidLaDAConfig,
    workload: Workload,
    memory: int | None = None,
    strategies: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
) -> str:
    """A line for each precision and strategy, in GB.

    Args:
        memory: bytes of the device; None: nothing is said about what fits.
        strategies: as they are typed, see `parse_cache`; None: all that have a name.
        precisions: names in `PRECISIONS`; None: `USUAL_PRECISIONS`.

    Raises:
        ValueError: an unknown name, or an impossible setting.
    """
    usable = None if memory is None else memory - RESERVED
    chosen = {name: _precision(name) for name in precisions or USUAL_PRECISIONS}

    @cache
    def weights_of(name: str) -> int:
        return count_weights(config, chosen[name])

    @cache
    def plan_of(dtype: torch.dtype, product: Product | None) -> MemoryPlan:
        return MemoryPlan(config, dtype, product)

    @cache
    def need(dtype: torch.dtype, product: Product | None, strategy: str, batch_size: int) -> MemoryNeed:
        asked = replace(workload, batch_size=batch_size)
        return plan_of(dtype, product).count(resolve_cache_strategy(*parse_cache(strategy)), asked)

    rows = [["precision", "strategy", "weights", "kept", "working", "graphs", "total"]]
    rows[0] += [] if usable is None else ["fits", "largest batch"]
    lines = list(pairs(chosen, strategies or CACHE_STRATEGIES))
    for name, strategy in tqdm(lines, desc="counting", unit="line", leave=False):
        weights, of_batch = weights_of(name), partial(need, chosen[name].dtype, chosen[name].product, strategy)
        counted = of_batch(workload.batch_size)
        total = weights + counted.total
        sizes = (weights, counted.kept, counted.working, counted.graphs, total)
        rows.append([name, strategy, *(f"{size / GB:.1f}" for size in sizes)])
        if usable is not None:
            largest = largest_batch(partial(_total, of_batch), usable - weights)
            rows[-1] += ["yes" if total <= usable else "no", f"{largest}{'+' * (largest == MOST_QUESTIONS)}"]
    return text_table(rows, left=2)


def _total(of_batch: Callable[[int], MemoryNeed], batch_size: int) -> int:
    return of_batch(batch_size).total


def _precision(name: str) -> Precision:
    check_choice("precision", name, tuple(PRECISIONS))
    return PRECISIONS[name]


__all__ = ["PRECISIONS", "MemoryNeed", "MemoryPlan", "Workload", "count_weights", "parse_bytes", "plan_table"]
