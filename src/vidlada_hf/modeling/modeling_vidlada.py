"""The network: SigLIP2 tower -> projector -> pooling -> newlines -> bidirectional LLaDA text model -> head.

Facts and figures: arXiv 2601.17868 and the official code (repository ziHoHe/VidLaDA).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel, SiglipVisionConfig, SiglipVisionModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, ModelOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import (
    LlamaMLP,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
    apply_rotary_pos_emb,
    eager_attention_forward,
)
from transformers.utils import can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .cache_vidlada import DenoisingCache, count_positions
from .configuration_vidlada import VidLaDAConfig, VidLaDATextConfig
from .generation_vidlada import VidLaDAGenerationMixin
from .objective_vidlada import TimeSampling, check_labels, check_masks, complete_masks, diffusion_loss
from .official_checkpoint_vidlada import WEIGHT_RENAMINGS


@dataclass
class VidLaDAModelOutput(ModelOutput):
    """What `VidLaDAModel` returns.

    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(batch, rows, hidden)`): after the final norm.
        hidden_states, attentions: one a layer, where asked for (`hidden_states[0]` is the embeddings).
    """

    last_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class VidLaDAOutput(ModelOutput):
    """What `VidLaDAForConditionalGeneration` returns.

    Args:
        loss (`torch.FloatTensor`, a scalar): only with `labels`.
        logits (`torch.FloatTensor` of shape `(batch, rows kept, vocabulary)`): for the rows of `logits_to_keep`. Row i
            predicts the token at row i itself, not the next one. With `labels`, `(masked tokens, vocabulary)`.
        hidden_states, attentions: one a layer, where asked for.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class VidLaDAAttention(nn.Module):
    """Multi-head attention of every row to every row."""

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
        """(batch, rows, hidden) -> the same shape, and the attention weights where the implementation gives them."""
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
        interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        dropout = self.config.attention_dropout if self.training else 0.0
        return interface(self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, **kwargs)


class VidLaDALayer(GradientCheckpointingLayer):
    """Norm, attention, norm, gated MLP, each with a residual."""

    def __init__(self, config: VidLaDATextConfig, layer_idx: int) -> None:
        super().__init__()
        self.self_attn = VidLaDAAttention(config, layer_idx)
        self.mlp = LlamaMLP(config)
        self.input_layernorm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = LlamaRMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        denoising_cache: DenoisingCache | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """(batch, rows, hidden) -> the same shape."""
        attended, _ = self.self_attn(
            self.input_layernorm(hidden_states), position_embeddings, attention_mask, denoising_cache, **kwargs
        )
        hidden_states = hidden_states + attended
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))


class VidLaDAVisionTower(SiglipVisionModel):
    """SigLIP2 whose output is the last layer's, before the post layer norm (the official model never applies it)."""

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__(config)
        # In every checkpoint, and never used: without this it would count as a parameter without a gradient.
        self.post_layernorm.requires_grad_(False)

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutput:
        """Pixels (frames, 3, side, side) -> last_hidden_state (frames, patches, hidden)."""
        return self.encoder(inputs_embeds=self.embeddings(pixel_values), **kwargs)


class VidLaDAProjector(nn.Module):
    """Linear, activation, linear: from the tower's width to the text model's, before pooling."""

    def __init__(self, config: VidLaDAConfig) -> None:
        super().__init__()
        hidden_size = config.text_config.hidden_size
        self.linear_1 = nn.Linear(config.vision_config.hidden_size, hidden_size)
        self.act = ACT2FN[config.projector_hidden_act]
        self.linear_2 = nn.Linear(hidden_size, hidden_size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(frames, patches, tower width) -> (frames, patches, hidden)."""
        return self.linear_2(self.act(self.linear_1(features)))


def pool_patches(features: torch.Tensor, stride: int, mode: str) -> torch.Tensor:
    """Pools the square grid of patches of each frame.

    Args:
        features: (frames, side * side, hidden).
        stride: patches along the side of a pooled cell.
        mode: "bilinear" resizes to ceil(side / stride) without antialias and with `align_corners=False`; "average"
            and "max" pool to floor(side / stride).

    Returns:
        (frames, pooled side, pooled side, hidden).
    """
    side = math.isqrt(features.shape[1])
    grid = features.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    if mode == "bilinear":
        pooled = nn.functional.interpolate(grid, size=[math.ceil(side / stride)] * 2, mode="bilinear")
    elif mode == "average":
        pooled = nn.functional.avg_pool2d(grid, stride)
    else:
        pooled = nn.functional.max_pool2d(grid, stride)
    return pooled.permute(0, 2, 3, 1)


def add_newlines(frames: torch.Tensor, newline: torch.Tensor, position: str) -> torch.Tensor:
    """Lays the frames of one video out as rows, with the newline vector where `position` says.

    Args:
        frames: (frames, side, side, hidden).
        newline: (hidden,).
        position: "grid" after each row of a frame, "frame" after each frame, "one_token" after the video, "no_token".

    Returns:
        (rows, hidden).
    """
    count, side, _, hidden = frames.shape
    if position == "grid":
        return torch.cat([frames, newline.expand(count, side, 1, hidden)], dim=2).flatten(0, 2)
    if position == "frame":
        return torch.cat([frames.flatten(1, 2), newline.expand(count, 1, hidden)], dim=1).flatten(0, 1)
    if position == "one_token":
        return torch.cat([frames.flatten(0, 2), newline[None]])
    return frames.flatten(0, 2)


class VidLaDANewline(nn.Module):
    """The learned vector that ends a row, a frame or a video. A module, so that offloading fetches it when used."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(hidden_size))

    def forward(self, frames: torch.Tensor, position: str) -> torch.Tensor:
        """See `add_newlines`."""
        return add_newlines(frames, self.weight.to(frames), position)


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

        Raises:
            ValueError: a file of weights is damaged; or the checkpoint lacks tensors, which transformers would silently
                fill with random values.
        """
        name = args[0] if args else kwargs.get("pretrained_model_name_or_path")
        try:
            model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        except SafetensorError as error:
            raise ValueError(f"A file of weights in {name} is damaged ({error}): copy it again.") from error
        if missing := sorted(info["missing_keys"]):
            raise ValueError(
                f"The checkpoint {name} lacks {len(missing)} tensors that {cls.__name__} needs: "
                f"{', '.join(missing[:8])}{', ...' if len(missing) > 8 else ''}. Download it again, or "
                "convert the official checkpoint with `vidlada convert`."
            )
        return (model, info) if output_loading_info else model

    def save_pretrained(self, *args: Any, save_original_format: bool = False, **kwargs: Any) -> None:
        """As in transformers, but in this package's names, also when the model came from an official checkpoint."""
        super().save_pretrained(*args, save_original_format=save_original_format, **kwargs)


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
        layers: range | None = None,
        denoising_cache: DenoisingCache | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Runs rows through the layers.

        Args:
            input_ids: (batch, rows); or
            inputs_embeds: (batch, rows, hidden), which may also be the hidden states that enter `layers`.
            attention_mask: (batch, keys), 0 where padded; or (batch, 1, rows, keys), bool, True where a row sees a key.
            position_ids: (batch, rows), the place of each computed row in its sequence. By default counted from the
                first row that is not padded.
            layers: the layers to run, all by default. The final norm is applied only after the last one.
            denoising_cache: decides which cached keys and values the rows attend to (see `DenoisingCache`); with it
                `attention_mask` goes to the cache as it is.

        Raises:
            ValueError: both or neither of `input_ids` and `inputs_embeds`.
        """
        require_one(input_ids, inputs_embeds)
        hidden_states = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if position_ids is None:
            position_ids = default_position_ids(hidden_states, attention_mask)
        if denoising_cache is None:
            attention_mask = create_bidirectional_mask(self.config, hidden_states, attention_mask)
            if self.config._attn_implementation == "eager" and getattr(attention_mask, "dtype", None) == torch.bool:
                # A mask of the caller's own is passed on as it is, and eager attention adds it to the scores.
                lowest = torch.finfo(hidden_states.dtype).min
                attention_mask = torch.zeros_like(attention_mask, dtype=hidden_states.dtype).masked_fill(
                    ~attention_mask, lowest
                )
        position_embeddings = self.rotary_emb(hidden_states, position_ids)
        layers = range(len(self.layers)) if layers is None else layers
        for i in layers:
            hidden_states = self.layers[i](
                hidden_states, position_embeddings, attention_mask, denoising_cache, **kwargs
            )
        if layers.stop == len(self.layers):
            hidden_states = self.norm(hidden_states)
        return BaseModelOutput(last_hidden_state=hidden_states)


def require_one(input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None) -> None:
    """Raises a ValueError unless exactly one of the two is given."""
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("Give exactly one of `input_ids` and `inputs_embeds`.")


def default_position_ids(rows: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.LongTensor:
    """Positions (batch or 1, rows) counted over the rows that are not padded: a left-padded row keeps its own."""
    if attention_mask is not None and attention_mask.dim() == 2:
        return count_positions(attention_mask)  # type: ignore[return-value]
    return torch.arange(rows.shape[1], device=rows.device)[None]  # type: ignore[return-value]


class VidLaDAModel(VidLaDAPreTrainedModel):
    """Tower, projector and text model, without the head."""

    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]

    def __init__(self, config: VidLaDAConfig) -> None:
        super().__init__(config)
        self.vision_tower = VidLaDAVisionTower._from_config(config.vision_config)
        self.multi_modal_projector = VidLaDAProjector(config)
        self.image_newline = VidLaDANewline(config.text_config.hidden_size)
        self.language_model = VidLaDATextModel._from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The text model's token embeddings."""
        return self.language_model.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the text model's token embeddings."""
        self.language_model.embed_tokens = value

    @property
    def tokens_per_frame(self) -> int:
        """Rows of the sequence that one frame of a video takes (210 for the 8B model)."""
        side = self.config.vision_grid / self.config.pooling_stride
        side = math.ceil(side) if self.config.pooling_mode == "bilinear" else math.floor(side)
        return side * side + {"grid": side, "frame": 1}.get(self.config.newline_position, 0)

    def _encode(self, pixels: torch.Tensor, pool: bool, vision_batch_size: int | None) -> torch.Tensor:
        """Pixels (frames, 3, side, side) -> (frames, height, width, hidden), so many frames at a time."""
        chunks = []
        for chunk in pixels.split(vision_batch_size or max(len(pixels), 1)):
            features = self.vision_tower(chunk.to(self.vision_tower.dtype)).last_hidden_state
            features = self.multi_modal_projector(features)
            stride = self.config.pooling_stride if pool else 1
            chunks.append(pool_patches(features, stride, self.config.pooling_mode))
        return torch.cat(chunks)

    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor,
        video_num_frames: torch.Tensor | Sequence[int] | None = None,
        vision_batch_size: int | None = 16,
    ) -> list[torch.Tensor]:
        """Encodes videos once, for any number of questions (pass the result as `video_features`).

        Args:
            pixel_values_videos: (frames of all videos, 3, side, side), or (videos, frames, 3, side, side).
            video_num_frames: (videos,), how many of the frames belong to each video; one video by default.
            vision_batch_size: frames encoded at a time, which bounds the tower's activations; None for all at once.

        Returns:
            A tensor (rows, hidden) for each video, `rows` = frames x `tokens_per_frame` (+ 1 for "one_token").

        Raises:
            ValueError: the counts do not add up to the frames given, or a video has no frames.
        """
        if pixel_values_videos.dim() == 5:
            if video_num_frames is None:
                video_num_frames = [pixel_values_videos.shape[1]] * pixel_values_videos.shape[0]
            pixel_values_videos = pixel_values_videos.flatten(0, 1)
        counts = [len(pixel_values_videos)] if video_num_frames is None else [int(n) for n in video_num_frames]
        if sum(counts) != len(pixel_values_videos) or min(counts, default=0) < 1:
            raise ValueError(
                f"`video_num_frames` is {counts} (sum {sum(counts)}) but `pixel_values_videos` holds "
                f"{len(pixel_values_videos)} frames; each video needs at least one, and all must add up. (The batching "
                "of transformers' own pipelines cuts frames off: use batch_size=1 there, or the pipeline "
                "'video-text-to-text'.)"
            )
        frames = self._encode(pixel_values_videos, pool=True, vision_batch_size=vision_batch_size)
        position = self.config.newline_position
        return [self.image_newline(video, position) for video in frames.split(counts)]

    def get_image_features(self, pixel_values: torch.Tensor, vision_batch_size: int | None = 16) -> list[torch.Tensor]:
        """Encodes images, one base view each: all patches without pooling, then one newline.

        Args:
            pixel_values: (images, 3, side, side).
            vision_batch_size: images encoded at a time.

        Returns:
            A tensor (patches + 1, hidden) for each image (730 rows for the 8B model).
        """
        images = self._encode(pixel_values, pool=False, vision_batch_size=vision_batch_size)
        return [self.image_newline(image[None], "one_token") for image in images]

    def merge_features(
        self,
        input_ids: torch.LongTensor,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_num_frames: torch.Tensor | Sequence[int] | None = None,
        video_features: torch.Tensor | Sequence[torch.Tensor] | None = None,
        vision_batch_size: int | None = 16,
    ) -> torch.Tensor:
        """Token embeddings (batch, rows, hidden) with the visual features at their placeholders.

        Raises:
            ValueError: placeholders without features, features without placeholders, or their numbers differ.
        """
        if pixel_values_videos is not None and video_features is not None:
            raise ValueError("Give `pixel_values_videos` or `video_features`, not both: they say the same twice.")
        if pixel_values_videos is not None:
            video_features = self.get_video_features(pixel_values_videos, video_num_frames, vision_batch_size)
        image_features = None if pixel_values is None else self.get_image_features(pixel_values, vision_batch_size)

        is_video, is_image = input_ids == self.config.video_token_id, input_ids == self.config.image_token_id
        # The placeholders' own embeddings are never used, and their ids may lie outside the vocabulary.
        embeddings = self.get_input_embeddings()(input_ids.masked_fill(is_video | is_image, 0))
        for what, places, features in (("video", is_video, video_features), ("image", is_image, image_features)):
            embeddings = scatter_features(embeddings, places, features, what)
        return embeddings

    def frame_index(
        self, input_ids: torch.LongTensor, video_num_frames: torch.Tensor | Sequence[int] | None = None
    ) -> torch.Tensor:
        """The frame that each row shows, (batch, rows), int64: 0, 1, ... within an example, -1 for text and images.

        Args:
            video_num_frames: (videos,); needed only for "one_token" with several videos in an example.
        """
        is_video = input_ids == self.config.video_token_id
        place = is_video.long().cumsum(-1) - 1
        if self.config.newline_position == "one_token":
            newline = is_video & (place == place[:, -1:])
            if video_num_frames is not None:
                rows = torch.as_tensor(video_num_frames, device=input_ids.device) * self.tokens_per_frame + 1
                newline[is_video] = torch.isin(
                    torch.arange(int(is_video.sum()), device=input_ids.device), rows.cumsum(0) - 1
                )
            place = place - newline.long().cumsum(-1)
        return torch.where(is_video, place // self.tokens_per_frame, -1)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_num_frames: torch.Tensor | None = None,
        video_features: torch.Tensor | Sequence[torch.Tensor] | None = None,
        vision_batch_size: int | None = 16,
        **kwargs: Any,
    ) -> VidLaDAModelOutput:
        """Hidden states of every row. See `VidLaDAForConditionalGeneration.forward` for the arguments."""
        require_one(input_ids, inputs_embeds)
        if input_ids is not None:
            inputs_embeds = self.merge_features(
                input_ids, pixel_values, pixel_values_videos, video_num_frames, video_features, vision_batch_size
            )
        elif any(given is not None for given in (pixel_values, pixel_values_videos, video_features)):
            raise ValueError(
                "Visual inputs need `input_ids`, whose placeholders say where they go. Pass `input_ids`, or merge them "
                "yourself with `merge_features` and pass the result as `inputs_embeds`."
            )
        outputs = self.language_model(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, position_ids=position_ids, **kwargs
        )
        return VidLaDAModelOutput(outputs.last_hidden_state, outputs.hidden_states, outputs.attentions)


def scatter_features(
    embeddings: torch.Tensor,
    places: torch.Tensor,
    features: torch.Tensor | Sequence[torch.Tensor] | None,
    what: str,
) -> torch.Tensor:
    """Puts features, in order, at the rows marked in `places`.

    Args:
        embeddings: (batch, rows, hidden).
        places: (batch, rows), bool.
        features: (rows, hidden), (videos, rows, hidden) or a list of (rows, hidden); None if there are none.
        what: "video" or "image", for the message.

    Raises:
        ValueError: the number of features is not the number of places.
    """
    if features is not None:
        features = features if isinstance(features, torch.Tensor) else torch.cat([*features])
        features = features.flatten(0, -2)
    given, wanted = 0 if features is None else len(features), int(places.sum())
    if given != wanted:
        remedy = (
            f"pass the pixels of the {what} that the processor returned along with the ids"
            if given == 0
            else "build `input_ids` with the processor that belongs to this checkpoint, from the same frames"
        )
        raise ValueError(
            f"`input_ids` holds {wanted} {what} placeholders, but there are {given} {what} features: {remedy}."
        )
    if features is None:
        return embeddings
    return embeddings.masked_scatter(places[..., None], features.to(embeddings))


class VidLaDAForConditionalGeneration(VidLaDAGenerationMixin, VidLaDAPreTrainedModel):
    """VidLaDA with its head: `forward` for logits, `generate` for answers."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}
    # The loss is a mean over examples: `Trainer` averages it over accumulated batches instead of passing a token count.
    accepts_loss_kwargs = False

    def __init__(self, config: VidLaDAConfig) -> None:
        super().__init__(config)
        self.model = VidLaDAModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The text model's token embeddings."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the text model's token embeddings."""
        self.model.set_input_embeddings(value)

    def get_video_features(self, *args: Any, **kwargs: Any) -> list[torch.Tensor]:
        """See `VidLaDAModel.get_video_features`."""
        return self.model.get_video_features(*args, **kwargs)

    def get_image_features(self, *args: Any, **kwargs: Any) -> list[torch.Tensor]:
        """See `VidLaDAModel.get_image_features`."""
        return self.model.get_image_features(*args, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_num_frames: torch.Tensor | None = None,
        video_features: torch.Tensor | Sequence[torch.Tensor] | None = None,
        vision_batch_size: int | None = 16,
        logits_to_keep: int | torch.Tensor = 0,
        labels: torch.LongTensor | None = None,
        masked: torch.Tensor | None = None,
        mask_probabilities: torch.Tensor | None = None,
        example_weights: torch.Tensor | None = None,
        time_sampling: TimeSampling = "independent",
        generator: torch.Generator | None = None,
        **kwargs: Any,
    ) -> VidLaDAOutput:
        """Logits of every row, each for the token at that row; or with `labels` the training loss.

        Args:
            input_ids: (batch, rows), with `tokens_per_frame` placeholders a frame; or
            inputs_embeds: (batch, rows, hidden), visual features merged already.
            attention_mask: (batch, rows), 0 where padded. Leave it out when nothing is: no mask is built then.
            position_ids: (batch, rows); by default counted over the rows that are not padded.
            pixel_values: (images, 3, side, side), in the order of the image placeholders over the batch.
            pixel_values_videos: (frames of all videos, 3, side, side), videos in the order of their placeholders.
            video_num_frames: (videos,), frames of each video.
            video_features: instead of pixels, what `get_video_features` returned.
            vision_batch_size: frames that the tower encodes at a time; None for all at once.
            logits_to_keep: compute the head only on the last so many rows (0 for all), or on these rows (1-d tensor).
            labels: (batch, rows), the tokens to learn, -100 elsewhere. Some of them are masked in the input, and the
                loss is that of predicting these (see `objective_vidlada`). The input holds the answer unmasked.
            masked, mask_probabilities: (batch, rows) bool and (batch,), the masks and the probabilities with which
                they were drawn. Drawn here if not given; with `masked` the probabilities must be given too.
            example_weights: (batch,), what each example's part of the loss is multiplied by.
            time_sampling, generator: how the probabilities are drawn, and from what.

        Raises:
            ValueError: ids and embeddings both or neither given; placeholders and features that do not match; an
                example without labels; labels, masks or probabilities of another shape, or with impossible values.
        """
        visual = {
            "pixel_values": pixel_values,
            "pixel_values_videos": pixel_values_videos,
            "video_num_frames": video_num_frames,
            "video_features": video_features,
            "vision_batch_size": vision_batch_size,
        }
        if labels is None and any(given is not None for given in (masked, mask_probabilities, example_weights)):
            raise ValueError(
                "`masked`, `mask_probabilities` and `example_weights` belong to training: give `labels` too."
            )
        if labels is not None:
            require_one(input_ids, inputs_embeds)
            config, vocabulary = self.config, self.config.text_config.vocab_size
            inputs: Any = inputs_embeds if input_ids is None else input_ids
            check_labels(labels, inputs, vocabulary, (config.video_token_id, config.image_token_id))
            check_masks(labels, masked, mask_probabilities, example_weights)
            if inputs_embeds is None:
                inputs_embeds, input_ids = self.model.merge_features(input_ids, **visual), None
                visual = {}
            covered, rates = complete_masks(labels, masked, mask_probabilities, time_sampling, generator)
            mask = self.get_input_embeddings()(labels.new_tensor(self.config.mask_token_id))
            inputs_embeds = torch.where(covered[..., None], mask, inputs_embeds)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **visual,
            **kwargs,
        )
        if labels is not None:
            logits = self.lm_head(outputs.last_hidden_state[covered])
            loss = diffusion_loss(logits, labels, covered, rates, example_weights)
            return VidLaDAOutput(loss, logits, outputs.hidden_states, outputs.attentions)
        rows = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, rows])
        return VidLaDAOutput(None, logits, outputs.hidden_states, outputs.attentions)


register_checkpoint_conversion_mapping(
    VidLaDAConfig.model_type,
    [WeightRenaming(official, ours) for official, ours in WEIGHT_RENAMINGS],
    overwrite=True,
)

__all__ = ["VidLaDAForConditionalGeneration", "VidLaDAModel", "VidLaDAPreTrainedModel", "VidLaDATextModel"]
