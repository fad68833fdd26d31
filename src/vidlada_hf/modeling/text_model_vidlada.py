"""The text model: LLaDA, Llama's layers without a causal mask, which a denoising cache may run in part."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import (
    LlamaMLP,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
    eager_attention_forward,
)
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .cache_vidlada import DenoisingCache, count_positions
from .configuration_vidlada import VidLaDAConfig, VidLaDATextConfig
from .flash_attention_vidlada import FEW_QUERIES, flash_attention, has_flash_attention
from .layer_functions_vidlada import forget_packed, layer_functions
from .loading_vidlada import refuse_other_shapes, required_names, surplus_names
from .remote_code_vidlada import copy_model_code
from .vision_vidlada import VidLaDANewline


class VidLaDAAttention(nn.Module):
    """Multi-head attention of every token to every token."""

    def __init__(self, config: VidLaDATextConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim: int = config.head_dim or config.hidden_size // config.num_attention_heads
        key_value_heads = config.num_key_value_heads or config.num_attention_heads
        self.num_key_value_groups = config.num_attention_heads // key_value_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False  # sdpa and flash trust this attribute when there is no mask
        bias = config.attention_bias
        self.q_proj = nn.Linear(config.hidden_size, config.num_attention_heads * self.head_dim, bias=bias)
        self.k_proj = nn.Linear(config.hidden_size, key_value_heads * self.head_dim, bias=bias)
        self.v_proj = nn.Linear(config.hidden_size, key_value_heads * self.head_dim, bias=bias)
        self.o_proj = nn.Linear(config.num_attention_heads * self.head_dim, config.hidden_size, bias=bias)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None,
        denoising_cache: DenoisingCache | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(batch, tokens, hidden) -> the same shape, and the attention weights where the implementation gives them."""
        heads = (*hidden_states.shape[:-1], -1, self.head_dim)
        query = self.q_proj(hidden_states).view(heads).transpose(1, 2)
        key = self.k_proj(hidden_states).view(heads).transpose(1, 2)
        value = self.v_proj(hidden_states).view(heads).transpose(1, 2)
        query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
        if denoising_cache is None:
            attended, weights = self.attend(query, key, value, attention_mask, **kwargs)
        else:
            attended, weights = denoising_cache.attend(self, query, key, value, attention_mask, **kwargs), None
        return self.o_proj(attended.reshape(*hidden_states.shape[:-1], -1)), weights

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attention by the configured implementation.

        Args:
            query: (batch, heads, queries, head_dim), rotated.
            key, value: (batch, key-value heads, keys, head_dim), keys rotated.

        Returns:
            (batch, queries, heads, head_dim), and the weights where the implementation gives them.
        """
        if self._splits_keys(query, attention_mask):
            return flash_attention(query, key, value, self.scaling)[0].transpose(1, 2), None
        interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        dropout = self.config.attention_dropout if self.training else 0.0
        return interface(self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs)

    def _splits_keys(self, query: torch.Tensor, attention_mask: torch.Tensor | None) -> bool:
        """Whether flash attention, which splits the keys, is the faster: on a GPU, for few queries."""
        few = query.is_cuda and query.shape[2] <= FEW_QUERIES and attention_mask is None
        return few and not torch.is_grad_enabled() and has_flash_attention(self, query)


class VidLaDALayer(GradientCheckpointingLayer):
    """Norm, attention, norm, gated MLP, each with a residual."""

    def __init__(self, config: VidLaDATextConfig, layer_idx: int) -> None:
        super().__init__()
        self.self_attn = VidLaDAAttention(config, layer_idx)
        self.mlp = LlamaMLP(config)
        self.input_layernorm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def _apply(self, fn: Callable, recurse: bool = True) -> Any:
        forget_packed(self)
        return super()._apply(fn, recurse)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        denoising_cache: DenoisingCache | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """(batch, tokens, hidden) -> the same shape."""
        functions = layer_functions(self, hidden_states)
        if functions is not None:
            query, key, value = functions.enter(hidden_states, *position_embeddings)
            if denoising_cache is None:
                attended = self.self_attn.attend(query, key, value, attention_mask, **kwargs)[0]
            else:
                attended = denoising_cache.attend(self.self_attn, query, key, value, attention_mask, **kwargs)
            return functions.leave(hidden_states, attended)
        attended, _ = self.self_attn(
            self.input_layernorm(hidden_states), position_embeddings, attention_mask, denoising_cache, **kwargs
        )
        hidden_states = hidden_states + attended
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))


class VidLaDAPreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation shared by all VidLaDA models."""

    config: VidLaDAConfig
    config_class = VidLaDAConfig
    base_model_prefix = "model"
    input_modalities: tuple[str, ...] = ("image", "video", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["VidLaDALayer", "SiglipEncoderLayer"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": VidLaDALayer, "attentions": VidLaDAAttention}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, VidLaDANewline):
            init.normal_(module.weight, std=len(module.weight) ** -0.5)

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """Loads a checkpoint in this package's or in the official layout.

        Tensors that the class which wrote it does not have, such as a new head's, are initialized, with a warning.

        Args:
            output_loading_info: return the model and a dict with what is missing; nothing is refused then.

        Raises:
            ValueError: a file of weights is damaged; or the checkpoint lacks tensors that are its own, which
                transformers would fill with random values, holds more of the model's own parts than its config says,
                or tensors of other shapes. The last is refused in any case, unless with `ignore_mismatched_sizes=True`.
        """
        name = args[0] if args else kwargs.get("pretrained_model_name_or_path")
        name = name or getattr(kwargs.get("config"), "name_or_path", None)  # of tensors that are given
        ignore_mismatched = kwargs.pop("ignore_mismatched_sizes", False)
        try:
            model, info = super().from_pretrained(
                *args, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
            )
        except SafetensorError as error:
            raise ValueError(f"A file of weights in {name} is damaged ({error}): copy it again.") from error
        if not ignore_mismatched:
            refuse_other_shapes(name, info["mismatched_keys"])
        if output_loading_info:
            return model, info
        missing = info["missing_keys"] and sorted(info["missing_keys"] & required_names(model, VidLaDAPreTrainedModel))
        if missing:
            raise ValueError(
                f"The checkpoint {name} lacks {len(missing)} tensors that {cls.__name__} needs: "
                f"{', '.join(missing[:8])}{', ...' if len(missing) > 8 else ''}. Download it again, or "
                "convert the official checkpoint with `vidlada convert`."
            )
        if surplus := sorted(surplus_names(model, info["unexpected_keys"])):
            raise ValueError(
                f"The checkpoint {name} holds {len(surplus)} tensors that its config.json has no place for: "
                f"{', '.join(surplus[:8])}{', ...' if len(surplus) > 8 else ''}. The two are not of one model "
                "(it may count fewer layers): copy the right config.json."
            )
        return model

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        is_main_process: bool = True,
        *args: Any,
        save_original_format: bool = False,
        **kwargs: Any,
    ) -> None:
        """As in transformers, but in this package's names, also when the model came from an official checkpoint.

        The configuration brings the code, so that the folder loads where this package is not installed.
        """
        if is_main_process and __name__.startswith("transformers_modules."):  # the configuration's code lies elsewhere
            copy_model_code(save_directory)
        super().save_pretrained(
            save_directory, is_main_process, *args, save_original_format=save_original_format, **kwargs
        )


class VidLaDATextModel(VidLaDAPreTrainedModel):
    """LLaDA: Llama's layers without a causal mask."""

    config: VidLaDATextConfig  # type: ignore[assignment]
    config_class = VidLaDATextConfig
    input_modalities = ("text",)

    def __init__(self, config: VidLaDATextConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([VidLaDALayer(config, i) for i in range(config.num_hidden_layers)])
        self.norm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rotary_emb = LlamaRotaryEmbedding(config=config)
        self.gradient_checkpointing = False
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        layers: range | None = None,
        denoising_cache: DenoisingCache | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Runs tokens through the layers.

        Args:
            input_ids: (batch, tokens); or
            inputs_embeds: (batch, tokens, hidden), which may also be the hidden states that enter `layers`.
            attention_mask: (batch, keys), 0 where padded; or (batch, 1, tokens, keys), bool, True where a token sees a
                key.
            position_ids: (batch, tokens), the position of each computed token in its sequence. By default counted over
                the tokens that are not padded.
            position_embeddings: what `rotary_emb` gives for these positions, (batch, tokens, head_dim) each, where that
                is known already.
            layers: the layers to run, all by default. The final norm is applied only after the last one.
            denoising_cache: decides which cached keys and values the tokens attend to (see `DenoisingCache`); with it
                `attention_mask` goes to the cache as it is.

        Raises:
            ValueError: both or neither of `input_ids` and `inputs_embeds`.
        """
        require_one(input_ids, inputs_embeds)
        hidden_states = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if position_ids is None:
            position_ids = default_position_ids(hidden_states, attention_mask)
        if denoising_cache is None and attention_mask is not None:
            attention_mask = create_bidirectional_mask(self.config, hidden_states, attention_mask)
            if self.config._attn_implementation == "eager" and getattr(attention_mask, "dtype", None) == torch.bool:
                # A mask of the caller's own is passed on as it is, and eager attention adds it to the scores.
                lowest = torch.finfo(hidden_states.dtype).min
                attention_mask = torch.zeros_like(attention_mask, dtype=hidden_states.dtype).masked_fill(
                    ~attention_mask, lowest
                )
        if position_embeddings is None:
            position_embeddings = self.rotary_emb(hidden_states, position_ids)
        layers = range(len(self.layers)) if layers is None else layers
        for i in layers:
            layer: Any = self.layers[i]
            run = layer if denoising_cache is None else partial(denoising_cache.run_layer, layer)
            hidden_states = run(hidden_states, position_embeddings, attention_mask, **kwargs)
        if layers.stop == len(self.layers):
            hidden_states = self.norm(hidden_states)
        return BaseModelOutput(last_hidden_state=hidden_states)


def require_one(input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None) -> None:
    """Raises a ValueError unless exactly one of the two is given."""
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("Give exactly one of `input_ids` and `inputs_embeds`.")


def default_position_ids(tokens: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.LongTensor:
    """Position ids (batch or 1, tokens), counted over the tokens that are not padded."""
    if attention_mask is not None and attention_mask.dim() == 2:
        return count_positions(attention_mask)  # type: ignore[return-value]
    return torch.arange(tokens.shape[1], device=tokens.device)[None]  # type: ignore[return-value]


__all__ = ["VidLaDAPreTrainedModel", "VidLaDATextModel", "require_one"]
