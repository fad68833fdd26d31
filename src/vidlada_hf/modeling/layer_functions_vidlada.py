"""A layer without its attention, as two functions of tensors: what a GPU runs in fewer kernels, and inductor compiles.

A layer whose modules are plain (`nn.Linear` and RMSNorm, without hooks, on one device) is the same as `enter_layer`,
its attention, and `leave_layer`, with its weights as arguments. One compilation serves all layers. On a GPU the weights
of query, key and value lie behind each other in one buffer, and so do those of gate and up: for few tokens one product
instead of three, and of two. All others - adapters, quantized, offloaded, split over devices, in training - run their
modules.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules import module as modules
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm
from transformers.utils import logging, output_capturing

from .cache_vidlada import capturing

logger = logging.get_logger(__name__)

# Up to so many tokens one product instead of two or three is the faster. With more the products take as long, and what
# follows them is slower on results that lie in one tensor; inductor does not mind.
PACKED_TOKENS = 1024

_compiles: ContextVar[bool] = ContextVar("vidlada_compiles_layers", default=False)


def rotate(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding of (batch, tokens, heads, head_dim) by tables (batch, tokens, head_dim)."""
    half = states.shape[-1] // 2
    cos, sin = cos[:, :, None], sin[:, :, None]
    rotated = states * cos
    rotated[..., :half].addcmul_(states[..., half:], sin[..., :half], value=-1)
    rotated[..., half:].addcmul_(states[..., :half], sin[..., half:])
    return rotated


def enter_layer(
    hidden_states: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    norm: torch.Tensor,
    weights: tuple[torch.Tensor, ...],
    heads: tuple[int, int, int],
    head_dim: int,
    epsilon: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Norm, projections, rotation.

    Args:
        hidden_states: (batch, tokens, hidden).
        cos, sin: (batch, tokens, head_dim).
        weights: of query, key and value, or one that holds all three; `heads`: how many heads each has.

    Returns:
        query, key, value: (batch, heads, tokens, head_dim), the first two rotated.
    """
    normed = F.rms_norm(hidden_states, norm.shape, norm, epsilon)
    states = [F.linear(normed, weight).unflatten(-1, (-1, head_dim)) for weight in weights]
    if len(states) == 1:
        both, value = states[0].split([heads[0] + heads[1], heads[2]], dim=2)
        query, key = rotate(both, cos, sin).split(heads[:2], dim=2)
    else:
        query, key, value = rotate(states[0], cos, sin), rotate(states[1], cos, sin), states[2]
    return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)


def leave_layer(
    hidden_states: torch.Tensor,
    attended: torch.Tensor,
    out: torch.Tensor,
    norm: torch.Tensor,
    weights: tuple[torch.Tensor, ...],
    down: torch.Tensor,
    epsilon: float,
) -> torch.Tensor:
    """Output projection, norm, gated MLP, with both residuals.

    Args:
        hidden_states: (batch, tokens, hidden), what entered the layer.
        attended: (batch, tokens, heads, head_dim).
        weights: of gate and up, or one that holds both.

    Returns:
        (batch, tokens, hidden).
    """
    hidden_states = hidden_states + F.linear(attended.flatten(2), out)
    normed = F.rms_norm(hidden_states, norm.shape, norm, epsilon)
    states = [F.linear(normed, weight) for weight in weights]
    gate, up = states[0].chunk(2, dim=-1) if len(states) == 1 else states
    return hidden_states + F.linear(F.silu(gate) * up, down)


@cache
def compiled(function: Callable, *constants: Any) -> Callable:
    """The function of tensors compiled, with these last arguments."""

    def bound(*tensors: Any) -> Any:
        return function(*tensors, *constants)

    return torch.compile(bound)


@contextmanager
def compiled_layers(enabled: bool) -> Iterator[None]:
    """Plain layers run compiled meanwhile, in this thread."""
    if enabled and not compiled.cache_info().currsize:
        logger.warning("The layers are compiled in the first step. This takes up to a minute, once.")
    token = _compiles.set(enabled)
    try:
        yield
    finally:
        _compiles.reset(token)


@dataclass(frozen=True)
class LayerFunctions:
    """A plain layer with its weights filled in."""

    layer: Any
    compiles: bool

    def enter(self, hidden_states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See `enter_layer`."""
        attention, norm = self.layer.self_attn, self.layer.input_layernorm
        linears = (attention.q_proj, attention.k_proj, attention.v_proj)
        heads = tuple(linear.out_features // attention.head_dim for linear in linears)
        weights = weights_of(attention, linears, self._is_packed(hidden_states))
        constants = (heads, attention.head_dim, norm.variance_epsilon)
        return self._call(enter_layer, (hidden_states, cos, sin), (norm.weight, weights), constants)

    def leave(self, hidden_states: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """See `leave_layer`."""
        attention, mlp, norm = self.layer.self_attn, self.layer.mlp, self.layer.post_attention_layernorm
        weights = weights_of(mlp, (mlp.gate_proj, mlp.up_proj), self._is_packed(hidden_states))
        arguments = (attention.o_proj.weight, norm.weight, weights, mlp.down_proj.weight)
        return self._call(leave_layer, (hidden_states, attended), arguments, (norm.variance_epsilon,))

    def _is_packed(self, hidden_states: torch.Tensor) -> bool:
        return self.compiles or hidden_states.shape[:-1].numel() <= PACKED_TOKENS

    def _call(self, function: Callable, states: Any, weights: Any, constants: Any) -> Any:
        if not self.compiles:
            return function(*states, *weights, *constants)
        for state in states:
            torch._dynamo.maybe_mark_dynamic(state, 1)  # one compilation for any number of tokens
        return compiled(function, *constants)(*states, *weights)


def layer_functions(layer: Any, hidden_states: torch.Tensor) -> LayerFunctions | None:
    """A layer as functions where that gains something and it is plain; else None: its modules are to be run.

    Where there are only shapes, a layer runs as on a GPU, so that what it needs there can be counted.
    """
    compiles, device = _compiles.get(), hidden_states.device.type
    if not (compiles or device in ("cuda", "meta")) or torch.is_grad_enabled() or not is_plain(layer, hidden_states):
        return None
    return LayerFunctions(layer, compiles)


def is_plain(layer: Any, hidden_states: torch.Tensor) -> bool:
    """Whether a layer's modules do just what `enter_layer` and `leave_layer` do, with weights beside these states."""
    attention, mlp = layer.self_attn, layer.mlp
    if type(mlp) is not LlamaMLP or mlp.config.hidden_act != "silu" or layer.training:
        return False
    projections = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
    linears = (*projections, mlp.gate_proj, mlp.up_proj, mlp.down_proj)
    norms = (layer.input_layernorm, layer.post_attention_layernorm)
    return (
        all(type(linear) is nn.Linear and linear.bias is None for linear in linears)
        and all(type(norm) is LlamaRMSNorm for norm in norms)
        and all(is_own(module.weight, hidden_states) for module in (*linears, *norms))
        and not any(has_hooks(module) for module in (attention, mlp, *linears, *norms))
    )


def is_own(weight: Any, states: torch.Tensor) -> bool:
    """Whether a weight is an ordinary tensor of the states' device and dtype."""
    is_ordinary = type(weight) is nn.Parameter and type(weight.data) is torch.Tensor
    return is_ordinary and weight.device == states.device and weight.dtype == states.dtype


def has_hooks(module: Any) -> bool:
    """Whether something else is called along with a module, or in its place (accelerate's offloading)."""
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    hooks += [*modules._global_forward_hooks.values(), *modules._global_forward_pre_hooks.values()]
    # Those by which transformers returns attentions stay on a module, and do nothing while nobody asks for any.
    collector = getattr(output_capturing, "_active_collector", None)
    if collector is not None and collector.get() is None:
        hooks = [hook for hook in hooks if getattr(hook, "__module__", None) != output_capturing.__name__]
    return bool(hooks) or "forward" in module.__dict__


# --- weights behind each other ---------------------------------------------------------------------------------------


class PackedWeight:
    """A buffer that parameters lie in, kept beside them. A copy of the module, which has its own weights, has none.

    Args:
        tensor: (outputs of all, inputs).
    """

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __deepcopy__(self, memo: dict) -> None:
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()


def weights_of(owner: Any, linears: Sequence[nn.Linear], packed: bool = True) -> tuple[torch.Tensor, ...]:
    """The weights of some products of the same input; one tensor that holds all where they lie in one buffer and
    `packed` asks for it."""
    weights = tuple(linear.weight for linear in linears)
    buffer = owner.__dict__.get("_packed_weight")
    if buffer is not None and lie_in(buffer.tensor, weights):
        return (buffer.tensor,) if packed else weights
    owner.__dict__.pop("_packed_weight", None)  # somebody moved a weight: nobody needs the buffer any more
    return weights


def lie_in(buffer: torch.Tensor, weights: Sequence[torch.Tensor]) -> bool:
    """Whether these are the parts of a buffer, in order. Whoever moves or replaces a weight takes it out."""
    begin = buffer.data_ptr()
    for weight in weights:
        if weight.data_ptr() != begin or weight.dtype != buffer.dtype or not weight.is_contiguous():
            return False
        begin += weight.numel() * weight.element_size()
    return begin == buffer.data_ptr() + buffer.numel() * buffer.element_size()


def pack_weights(text_model: Any) -> None:
    """Puts the weights of plain layers on a GPU behind each other: the same parameters, names and values.

    Each weight becomes a tensor of its own over its part of the buffer: whoever saves or moves it sees nothing shared.
    """
    with capturing:
        moved = False
        for layer in text_model.layers:
            weight = getattr(layer.input_layernorm, "weight", None)
            if weight is None or not weight.is_cuda or not is_plain(layer, weight):
                continue
            attention, mlp = layer.self_attn, layer.mlp
            moved |= pack(attention, (attention.q_proj, attention.k_proj, attention.v_proj))
            moved |= pack(mlp, (mlp.gate_proj, mlp.up_proj))
        if moved:
            torch.cuda.empty_cache()  # the weights' former places do not fit anything


@torch.inference_mode(False)  # inference tensors could never be trained again
@torch.no_grad()
def pack(owner: Any, linears: Sequence[nn.Linear]) -> bool:
    """Whether weights had to be moved into one buffer, which `owner` keeps."""
    weights = [linear.weight.data for linear in linears]
    is_part = any(weight.untyped_storage().nbytes() != weight.nbytes for weight in weights)  # of somebody's buffer
    if is_part or len(weights_of(owner, linears)) == 1:
        return False
    buffer = torch.cat(weights)
    parts = buffer.split([linear.out_features for linear in linears])
    with torch.cuda.device(buffer.device) if buffer.is_cuda else nullcontext():
        for linear, part in zip(linears, parts, strict=True):
            linear.weight.data = torch.from_dlpack(part)  # a storage of its own
    owner.__dict__["_packed_weight"] = PackedWeight(buffer)
    return True


def forget_packed(layer: Any) -> None:
    """Called when a layer's tensors are moved: the buffers that they lay in must not stay behind."""
    for owner in (layer.self_attn, layer.mlp):
        owner.__dict__.pop("_packed_weight", None)


__all__ = ["compiled_layers", "forget_packed", "has_hooks", "layer_functions", "pack_weights"]
