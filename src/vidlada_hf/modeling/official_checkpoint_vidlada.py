"""The official checkpoint layout (repository ziHoHe/VidLaDA, model type `llava_llada_video`) in this package's terms.

Only facts about names, shapes and fields live here; loading is transformers' own, and `hub/convert.py` rewrites files.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import get_safetensors_metadata
from safetensors import safe_open
from transformers.utils import cached_file

OFFICIAL_MODEL_TYPE = "llava_llada_video"
IMAGE_TOKEN, VIDEO_TOKEN = "<image>", "<video>"
TOWER_PREFIX = "model.vision_tower.vision_tower.vision_model."

# Official name -> ours, tried in this order, as regular expressions.
WEIGHT_RENAMINGS = (
    (r"^model\.vision_tower\.vision_tower\.vision_model\.", "model.vision_tower."),
    (r"^model\.mm_projector\.0\.", "model.multi_modal_projector.linear_1."),
    (r"^model\.mm_projector\.2\.", "model.multi_modal_projector.linear_2."),
    (r"^model\.(embed_tokens|layers|norm)\.", r"model.language_model.\1."),
    (r"^model\.image_newline(?!\.)", "model.image_newline.weight"),
)

# SigLIP2 so400m/14-384 (google/siglip2-so400m-patch14-384) as VidLaDA uses it: without its last layer and without the
# pooling head (26 of 27 layers remain).
SIGLIP2_WITHOUT_LAST_LAYER: dict[str, Any] = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 26,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
    "vision_use_head": False,
}

# LLaDA-8B's ids. A model cut down for tests keeps each at the same distance from the end of its vocabulary.
OFFICIAL_VOCAB_SIZE = 126464
OFFICIAL_IDS = {
    "bos": 126080,
    "eos": 126081,
    "mask": 126336,
    "start_header": 126346,
    "end_header": 126347,
    "eot": 126348,
}

# Official settings that change the network and that no released checkpoint uses: field -> values we can serve.
SERVED_VALUES: dict[str, tuple[Any, ...]] = {
    "mm_projector_type": ("mlp2x_gelu",),
    "mm_resampler_type": (None,),
    "mm_vision_select_feature": ("patch",),
    "mm_vision_select_layer": (-2,),
    "mm_use_im_start_end": (False,),
    "mm_use_im_patch_token": (False,),
    "add_faster_video": (False,),
    "mm_patch_merge_type": ("spatial_unpad", "spatial"),
}


def is_official_config(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is the official code's, not ours."""
    return config.get("model_type") == OFFICIAL_MODEL_TYPE


def special_ids(vocab_size: int) -> dict[str, int]:
    """The special ids of a model of this vocabulary (`bos`, `eos`, `mask`, `start_header`, `end_header`, `eot`)."""
    return {name: token_id - OFFICIAL_VOCAB_SIZE + vocab_size for name, token_id in OFFICIAL_IDS.items()}


def placeholder_ids(vocabulary: Mapping[str, int] | None, vocab_size: int) -> tuple[int, int]:
    """The ids that `<image>` and `<video>` get once they are added to the tokenizer, in this order.

    Args:
        vocabulary: token -> id of the checkpoint's tokenizer. None when there is none beside the weights: the ids are
            then the first two outside the model's vocabulary, which no text can hold by accident.
    """
    if vocabulary is None:
        return vocab_size, vocab_size + 1
    following = max(vocabulary.values()) + 1
    image_id = vocabulary.get(IMAGE_TOKEN, following)
    return image_id, vocabulary.get(VIDEO_TOKEN, max(following, image_id + 1))


def tower_config(tensor_shapes: Mapping[str, Iterable[int]] | None, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The vision tower's sizes: those given, else read off the tensors' shapes, else SigLIP2 so400m's.

    The number of layers always comes from the tensors where there are any: the checkpoint lacks the layer that the
    official loader drops.

    Raises:
        ValueError: the number of heads, which no shape tells, is neither given nor SigLIP2's; or the tower lacks a
            tensor that a size is read off.
    """
    sizes = read_tower_sizes(tensor_shapes or {})
    sizes |= {k: v for k, v in (given or {}).items() if not (k == "num_hidden_layers" and k in sizes)}
    siglip2_width = SIGLIP2_WITHOUT_LAST_LAYER["hidden_size"]
    if "num_attention_heads" not in sizes and sizes.get("hidden_size", siglip2_width) != siglip2_width:
        raise ValueError(
            f"The vision tower has a hidden size of {sizes['hidden_size']}, and its number of attention heads cannot "
            "be read off the tensors. Give the tower's own config: `vidlada convert ... --vision-config DIR` or "
            "`from_pretrained(..., vision_config={...})`."
        )
    sizes = SIGLIP2_WITHOUT_LAST_LAYER | sizes | {"vision_use_head": False}
    return {k: v for k, v in sizes.items() if k not in ("architectures", "model_type", "transformers_version")}


def read_tower_sizes(tensor_shapes: Mapping[str, Iterable[int]]) -> dict[str, Any]:
    """What the shapes of the tower's tensors tell; nothing if it has none."""
    shapes = {
        name.removeprefix(TOWER_PREFIX): tuple(shape)
        for name, shape in tensor_shapes.items()
        if name.startswith(TOWER_PREFIX)
    }
    if not shapes:
        return {}
    try:
        hidden_size, channels, patch_size, _ = shapes["embeddings.patch_embedding.weight"]
        grid = math.isqrt(shapes["embeddings.position_embedding.weight"][0])
        intermediate_size = shapes["encoder.layers.0.mlp.fc1.weight"][0]
    except KeyError as error:
        raise ValueError(
            f"The checkpoint lacks the tensor {TOWER_PREFIX}{error.args[0]}: download it again."
        ) from error
    return {
        "hidden_size": hidden_size,
        "intermediate_size": intermediate_size,
        "num_hidden_layers": 1 + max(int(name.split(".")[2]) for name in shapes if "encoder.layers." in name),
        "num_channels": channels,
        "patch_size": patch_size,
        # A side of 384 px with patches of 14 leaves a rest of 6 px, which no shape shows.
        "image_size": 384 if 384 // patch_size == grid else grid * patch_size,
    }


def translate_config(
    official: Mapping[str, Any],
    tensor_shapes: Mapping[str, Iterable[int]] | None = None,
    vocabulary: Mapping[str, int] | None = None,
    vision_config: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The fields of a `VidLaDAConfig` from an official config.json.

    Args:
        official: the parsed official config.json.
        tensor_shapes: tensor name -> shape of the official checkpoint, to read the tower's sizes off.
        vocabulary: token -> id of the official tokenizer, to place `<image>` and `<video>` after its last token.
        vision_config: fields of the tower's own config.json, which override what was read.

    Raises:
        ValueError: a setting that changes the network in a way this package does not serve.
    """
    for field, served in SERVED_VALUES.items():
        if field in official and official[field] not in served:
            raise ValueError(
                f"The official config sets `{field}` to {official[field]!r}; this package serves only "
                f"{', '.join(map(repr, served))}."
            )
    vocab_size = official["vocab_size"]
    ids = special_ids(vocab_size)
    image_token_id, video_token_id = placeholder_ids(vocabulary, vocab_size)
    text_fields = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps",
        "attention_bias", "attention_dropout", "bos_token_id", "tie_word_embeddings",
    )  # fmt: skip
    text_config = {field: official[field] for field in text_fields if field in official}
    text_config["pad_token_id"] = official.get("pad_token_id") or ids["eos"]
    # The official config names one end token; its evaluation stops at the end of the turn, given as a string.
    text_config["eos_token_id"] = [ids["eos"], ids["eot"]]
    rope_scaling = official.get("rope_scaling") or {"rope_type": "default"}
    text_config["rope_parameters"] = {**rope_scaling, "rope_theta": official.get("rope_theta", 500000.0)}
    return {
        "model_type": "vidlada",
        "architectures": ["VidLaDAForConditionalGeneration"],
        "text_config": text_config,
        "vision_config": tower_config(tensor_shapes, vision_config),
        "newline_position": official.get("mm_newline_position", "grid"),
        "pooling_mode": official.get("mm_spatial_pool_mode", "bilinear"),
        "pooling_stride": 2,  # the official code never reads `mm_spatial_pool_stride`
        "image_token_id": image_token_id,
        "video_token_id": video_token_id,
        "mask_token_id": ids["mask"],
        "suppress_tokens": [ids["eos"], ids["bos"], ids["start_header"], ids["end_header"]],
        "initializer_range": official.get("initializer_range", 0.02),
        "tie_word_embeddings": official.get("tie_word_embeddings", False),
        "dtype": official.get("torch_dtype") or official.get("dtype"),
    }


def read_official_folder(
    name_or_path: str | os.PathLike, **hub_kwargs: Any
) -> tuple[dict[str, tuple[int, ...]], dict[str, int] | None]:
    """The tensors' shapes and the tokenizer's vocabulary of an official checkpoint (a folder or a Hub id).

    Only headers are read, no weights. Shapes are empty where there are no safetensors files, the vocabulary is None
    where there is no tokenizer.json.
    """
    hub_kwargs = {k: hub_kwargs[k] for k in ("revision", "token", "cache_dir", "local_files_only") if k in hub_kwargs}
    if os.path.isdir(name_or_path):
        shapes = local_tensor_shapes(Path(name_or_path))
    else:
        metadata = get_safetensors_metadata(
            str(name_or_path), revision=hub_kwargs.get("revision"), token=hub_kwargs.get("token")
        )
        shapes = {
            name: tuple(info.shape) for file in metadata.files_metadata.values() for name, info in file.tensors.items()
        }
    tokenizer_file = cached_file(
        name_or_path, "tokenizer.json", _raise_exceptions_for_missing_entries=False, **hub_kwargs
    )
    return shapes, read_vocabulary(tokenizer_file) if tokenizer_file else None


def local_tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape over all *.safetensors of a folder, read from their headers."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return shapes


def read_vocabulary(tokenizer_file: str | os.PathLike) -> dict[str, int]:
    """Token -> id of a tokenizer.json, added tokens included."""
    with open(tokenizer_file, encoding="utf-8") as file:
        tokenizer = json.load(file)
    return tokenizer["model"]["vocab"] | {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
