"""The configuration of VidLaDA: a SigLIP2 tower, a projector with pooling, and a bidirectional LLaDA text model."""

import os
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import LlamaConfig, PreTrainedConfig, SiglipVisionConfig
from transformers.activations import ACT2FN

from .loading_vidlada import refuse_other_type
from .official_checkpoint_vidlada import (
    SIGLIP2_WITHOUT_LAST_LAYER,
    is_official_config,
    read_official_folder,
    translate_config,
)
from .remote_code_vidlada import forget_model_code, with_model_code


@strict
class VidLaDATextConfig(LlamaConfig):
    """The text model of VidLaDA: Llama's shape, fully bidirectional. The defaults are LLaDA-8B's.

    All fields are those of `LlamaConfig`; `is_causal` is False and must stay so.
    """

    model_type = "vidlada_text"
    base_config_key = "text_config"
    base_model_pp_plan = None

    vocab_size: int = 126464
    hidden_size: int = 4096
    intermediate_size: int = 12288
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    max_position_embeddings: int = 16384
    rms_norm_eps: float = 1e-5
    pad_token_id: int | None = 126081
    bos_token_id: int | None = 126080
    eos_token_id: int | list[int] | tuple[int, ...] | None = (126081, 126348)  # end of text, end of turn
    use_cache: bool = False
    is_causal: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        if getattr(self, "rope_parameters", None) is None and "rope_theta" not in kwargs:
            self.rope_parameters = {"rope_type": "default", "rope_theta": 500000.0}
        self.eos_token_id = list(self.eos_token_id) if isinstance(self.eos_token_id, tuple) else self.eos_token_id
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Raises a ValueError that names the field of an impossible shape."""
        for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"`text_config.{name}` must be at least 1, got {getattr(self, name)}.")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"`text_config.hidden_size` ({self.hidden_size}) must be a multiple of "
                f"`text_config.num_attention_heads` ({self.num_attention_heads})."
            )
        if self.num_key_value_heads < 1 or self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"`text_config.num_attention_heads` ({self.num_attention_heads}) must be a positive multiple of "
                f"`text_config.num_key_value_heads` ({self.num_key_value_heads})."
            )
        if not self.rms_norm_eps > 0:
            raise ValueError(f"`text_config.rms_norm_eps` must be above 0, got {self.rms_norm_eps}.")
        if not 0 <= self.attention_dropout < 1:
            raise ValueError(f"`text_config.attention_dropout` must lie in [0, 1), got {self.attention_dropout}.")
        if self.is_causal:
            raise ValueError("`text_config.is_causal` must be False: a diffusion language model attends in both ways.")

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in the parent class, of this model's fields only; see also `forget_model_code`."""
        refuse_other_type(config_dict, cls, VidLaDATextConfig)
        return super().from_dict(forget_model_code(config_dict, cls), **kwargs)

    def to_json_file(self, json_file_path: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """As in the parent class. As config.json, which makes its folder loadable, it names the code and brings it."""
        super(VidLaDATextConfig, with_model_code(self, json_file_path)).to_json_file(json_file_path, *args, **kwargs)


@strict
class VidLaDAConfig(PreTrainedConfig):
    """The configuration of a `VidLaDAForConditionalGeneration`. The defaults are the 8B model's.

    Args:
        text_config: the text model (`VidLaDATextConfig` or a dict of its fields).
        vision_config: the vision tower (`SiglipVisionConfig` or a dict of its fields). `num_hidden_layers` counts the
            layers that run: the official loader drops the last of SigLIP2's 27.
        projector_hidden_act: activation between the two linear layers of the projector.
        pooling_stride: side of the square of patches that become one visual token.
        pooling_mode: "bilinear" rounds the pooled side up, "average" and "max" round it down.
        newline_position: where the learned newline vector is put: after each row of a frame ("grid"), after each
            frame ("frame"), once after the whole video ("one_token") or nowhere ("no_token").
        image_token_id, video_token_id: the placeholders in `input_ids` that visual features replace. Their embeddings
            are never looked up, so they may lie outside the vocabulary.
        mask_token_id: the token that stands for "not known yet" on the canvas.
        suppress_tokens: ids that a masked position never becomes (begin and end of text, turn headers).
    """

    model_type = "vidlada"
    # Both transformers 5.17 (`sub_configs`) and 5.23 (`sub_configs_defaults`) read this attribute.
    sub_configs = {"text_config": VidLaDATextConfig, "vision_config": SiglipVisionConfig}
    keys_to_ignore_at_inference = ["hidden_states", "attentions", "image_outputs", "video_outputs"]  # by `Trainer`

    text_config: Any = None
    vision_config: Any = None
    projector_hidden_act: str = "gelu"
    pooling_stride: int = 2
    pooling_mode: Literal["bilinear", "average", "max"] = "bilinear"
    newline_position: Literal["grid", "frame", "one_token", "no_token"] = "grid"
    image_token_id: int = 126349
    video_token_id: int = 126350
    mask_token_id: int = 126336
    suppress_tokens: list[int] | tuple[int, ...] = (126081, 126080, 126346, 126347)
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        if not isinstance(self.text_config, PreTrainedConfig):
            self.text_config = VidLaDATextConfig(**(self.text_config or {}))
        if not isinstance(self.vision_config, PreTrainedConfig):
            self.vision_config = SiglipVisionConfig(**(SIGLIP2_WITHOUT_LAST_LAYER | (self.vision_config or {})))
        self.suppress_tokens = list(self.suppress_tokens)
        self.tie_word_embeddings = self.tie_word_embeddings or self.text_config.tie_word_embeddings
        super().__post_init__(**kwargs)

    @property
    def vision_grid(self) -> int:
        """Patches along one side of a frame (27 for the 8B model)."""
        return self.vision_config.image_size // self.vision_config.patch_size

    @property
    def pad_token_id(self) -> int | None:
        """The text model's, which stock code looks for here."""
        return self.text_config.pad_token_id

    @pad_token_id.setter
    def pad_token_id(self, value: int | None) -> None:
        self.text_config.pad_token_id = value

    def validate_architecture(self) -> None:
        """Raises a ValueError that names the field of an impossible value."""
        vision, text = self.vision_config, self.text_config
        for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size"):
            if getattr(vision, name) < 1:
                raise ValueError(f"`vision_config.{name}` must be at least 1, got {getattr(vision, name)}.")
        if self.vision_grid < 1:
            raise ValueError(
                f"`vision_config.patch_size` ({vision.patch_size}) must not exceed "
                f"`vision_config.image_size` ({vision.image_size})."
            )
        if vision.hidden_size % vision.num_attention_heads:
            raise ValueError(
                f"`vision_config.hidden_size` ({vision.hidden_size}) must be a multiple of "
                f"`vision_config.num_attention_heads` ({vision.num_attention_heads})."
            )
        if not 1 <= self.pooling_stride <= self.vision_grid:
            raise ValueError(
                f"`pooling_stride` must lie between 1 and the {self.vision_grid} patches of a frame's side, "
                f"got {self.pooling_stride}."
            )
        if self.projector_hidden_act not in ACT2FN:
            raise ValueError(
                f"`projector_hidden_act` must be one of {sorted(ACT2FN)}, got {self.projector_hidden_act!r}."
            )
        for name in ("image_token_id", "video_token_id", "mask_token_id"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must be a token id (0 or more), got {getattr(self, name)}.")
        for token in self.suppress_tokens:
            if not 0 <= token < text.vocab_size:
                raise ValueError(
                    f"`suppress_tokens` holds the id {token}, outside the vocabulary of {text.vocab_size} tokens."
                )
        if self.mask_token_id >= text.vocab_size:
            raise ValueError(
                f"`mask_token_id` ({self.mask_token_id}) must lie in the vocabulary of {text.vocab_size} tokens: "
                "its embedding is what the canvas starts from."
            )
        if len({self.image_token_id, self.video_token_id, self.mask_token_id}) < 3:
            raise ValueError(
                "`image_token_id`, `video_token_id` and `mask_token_id` must differ, got "
                f"{self.image_token_id}, {self.video_token_id} and {self.mask_token_id}."
            )

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Reads config.json; an official one is translated, with the tower's sizes read off the tensors beside it."""
        vision_config = kwargs.pop("vision_config", None)
        config_dict, unused = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if is_official_config(config_dict):
            tensor_shapes, vocabulary = read_official_folder(pretrained_model_name_or_path, **kwargs)
            config_dict = translate_config(config_dict, tensor_shapes, vocabulary, vision_config)
        elif vision_config is not None:
            unused["vision_config"] = vision_config
        return config_dict, unused

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Reads an official config.json too. See also `forget_model_code`.

        Raises:
            ValueError: the fields of another model, of a part that is not this model's, or impossible ones.
        """
        config_dict = translate_config(config_dict) if is_official_config(config_dict) else config_dict
        refuse_other_type(config_dict, cls, VidLaDAConfig)
        for name, part in cls.sub_configs.items():
            fields = config_dict.get(name)
            if isinstance(fields, dict):
                refuse_other_type(fields, part, part, f"`{name}` of config.json")
            elif fields is not None and not isinstance(fields, PreTrainedConfig):
                raise ValueError(f"`{name}` of config.json must be an object, got {fields!r}: copy the right file.")
        try:
            return super().from_dict(forget_model_code(config_dict, cls), **kwargs)
        except StrictDataclassError as error:  # which is no ValueError
            raise ValueError(f"config.json describes no model that can be: {error.__cause__ or error}") from error

    @classmethod
    def _dict_from_json_file(cls, json_file: str | os.PathLike) -> dict[str, Any]:
        fields = super()._dict_from_json_file(json_file)
        if not isinstance(fields, dict):
            raise ValueError(f"{json_file} holds no JSON object ({{...}}): copy it again.")
        return fields

    def to_json_file(self, json_file_path: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """As in the parent class. As config.json, which makes its folder loadable, it names the code and brings it."""
        super(VidLaDAConfig, with_model_code(self, json_file_path)).to_json_file(json_file_path, *args, **kwargs)


__all__ = ["VidLaDAConfig", "VidLaDATextConfig"]
