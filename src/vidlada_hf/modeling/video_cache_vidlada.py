"""One video, any number of questions: keys and values of everything up to the last visual token, computed once.

What stands there does not see the question then. That changes answers (docs/sharing.md says how often), so it is asked
for: `cache = model.encode_video(**inputs)`, then `model.generate(**inputs, video_cache=cache)` for each chat, or batch
of chats, that begins with the same video.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .cache_vidlada import DenoisingStep, SequenceLayout
from .kv_cache_vidlada import SelectiveKVCache

SAMPLED = 4096  # values of a tensor that its fingerprint looks at


@dataclass(frozen=True)
class VideoCache:
    """Keys and values of the beginning of a chat, up to its last visual token.

    Args:
        input_ids: (tokens,), int64, on the CPU.
        keys, values: a layer, (tokens, key-value heads, head_dim), the keys rotated.
        checkpoint: fingerprint of the text model that computed them.
        video: fingerprint of the pixels or features that they show.
    """

    input_ids: torch.Tensor
    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]
    checkpoint: str
    video: str

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values."""
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values))

    def keys_of(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a layer."""
        return self.keys[layer], self.values[layer]

    def __len__(self) -> int:
        """How many tokens it holds."""
        return len(self.input_ids)

    def to(self, device: torch.device | str) -> "VideoCache":
        """The same on another device."""
        keys, values = (tuple(tensor.to(device) for tensor in tensors) for tensors in (self.keys, self.values))
        return replace(self, keys=keys, values=values)

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file."""
        tensors = {"input_ids": self.input_ids, "keys": torch.stack(self.keys), "values": torch.stack(self.values)}
        metadata = {"format": "pt", "checkpoint": self.checkpoint, "video": self.video}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> "VideoCache":
        """Reads what `save` wrote.

        Raises:
            ValueError: the file is damaged, or holds something else.
        """
        try:
            with safe_open(path, "pt", device=str(device)) as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in ("input_ids", "keys", "values")}
                ids, fingerprints = tensors["input_ids"].cpu(), (metadata["checkpoint"], metadata["video"])
                return cls(ids, tuple(tensors["keys"]), tuple(tensors["values"]), *fingerprints)
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"{path} is no video cache, or is damaged ({error}): encode the video again.") from error

    def check(self, text_model: Any, video: str | None) -> None:
        """Whether it belongs to this model, where the model is, and to this video, where that is given.

        Raises:
            ValueError: it does not.
        """
        again = "encode the video again with `model.encode_video(**inputs)`"
        weight = text_model.embed_tokens.weight
        if self.keys[0].dtype != weight.dtype:
            raise ValueError(f"The video cache holds {self.keys[0].dtype}, the model {weight.dtype}: {again}.")
        if self.checkpoint != fingerprint_model(text_model):
            raise ValueError(f"The video cache was made with another checkpoint: {again}.")
        if self.keys[0].device != weight.device:
            raise ValueError(
                f"The video cache is on {self.keys[0].device}, the model on {weight.device}: move it with `.to`."
            )
        kind = self.video.split()[0]
        if video is not None and video.split()[0] == kind and video != self.video:
            raise ValueError(f"The video cache was made of another video, or of other frames of it: {again}.")

    def cut_off(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the prompts hold behind it.

        Args:
            input_ids, attention_mask: (batch, tokens), padded on the left.

        Returns:
            The same of what is left, padded on the left.

        Raises:
            ValueError: a prompt begins otherwise, or has visual tokens behind.
        """
        shared, own = self.input_ids.to(input_ids.device), []
        for example, ids in enumerate(input_ids):
            ids = ids if attention_mask is None else ids[attention_mask[example].bool()]
            if not torch.equal(ids[: len(shared)], shared):
                raise ValueError(
                    f"Prompt {example} does not begin as the video cache does ({len(shared)} tokens up to the last of "
                    "its video): another system message, text before the video, other frames or another time "
                    "sentence. Render all chats in the same way, or encode the video of this one."
                )
            own.append(ids[len(shared) :])
        rest = torch.nn.utils.rnn.pad_sequence(own, batch_first=True, padding_side="left")
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(i) for i in own], batch_first=True, padding_side="left")
        return rest, mask


@torch.no_grad()
def compute_video_cache(text_model: Any, input_ids: torch.Tensor, embeddings: torch.Tensor, video: str) -> VideoCache:
    """Runs the beginning of a chat through all layers, each token attending to all of it.

    Args:
        input_ids: (tokens,), int64.
        embeddings: (1, tokens, hidden), visual features merged in.
        video: fingerprint of what it shows.
    """
    tokens, device = len(input_ids), embeddings.device
    positions = torch.arange(tokens, device=device)[None]
    cache = SelectiveKVCache()
    cache.begin(SequenceLayout(positions, None, torch.full_like(positions, -1), slice(tokens, tokens)))
    cache.denoise(text_model, embeddings, DenoisingStep(0, 0, 0, slice(0, tokens)))
    keys, values = (tuple(kept[layer][:-1] for layer in sorted(kept)) for kept in (cache.keys, cache.values))
    return VideoCache(input_ids.cpu(), keys, values, fingerprint_model(text_model), video)


def fingerprint_model(text_model: Any) -> str:
    """Of the configuration and of some values of each weight: 16 hexadecimal digits."""
    config = text_model.config.to_dict()
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "rope_parameters", "rms_norm_eps")
    about = json.dumps({name: config.get(name) for name in names}, default=str)
    return _digest(about, [sample(weight, 16) for weight in text_model.parameters()])


def fingerprint_visual(visual: dict[str, Any]) -> str | None:
    """Of some values of the pixels, or else of the features, of videos and images; None where neither is given.

    Args:
        visual: visual arguments of `generate`. Values are looked at in bfloat16, which is the same in half precision.
    """
    pixels = [visual[name] for name in ("pixel_values", "pixel_values_videos") if visual.get(name) is not None]
    features = visual.get("video_features")
    kind, tensors = ("pixels", pixels) if pixels or features is None else ("features", list(features))
    if not tensors:
        return None
    tensors = [tensor.flatten(0, -4) if kind == "pixels" else tensor for tensor in tensors]
    shapes = [tuple(tensor.shape) for tensor in tensors]
    return f"{kind} " + _digest(str(shapes), [sample(tensor, SAMPLED) for tensor in tensors])


def sample(tensor: torch.Tensor, count: int) -> torch.Tensor:
    """(at most 2 x count,), bfloat16: evenly spaced values."""
    flat = tensor.detach().flatten()
    return flat[:: max(len(flat) // count, 1)].to(torch.bfloat16)


def _digest(about: str, samples: list[torch.Tensor]) -> str:
    digest = hashlib.sha256(about.encode())
    if samples:
        digest.update(torch.cat(samples).view(torch.int16).cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


__all__ = ["VideoCache", "compute_video_cache", "fingerprint_visual"]
