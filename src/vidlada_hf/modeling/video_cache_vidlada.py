"""One video, any number of questions: keys and values of everything up to the last visual token, computed once.

What stands there does not see the question then. That changes answers (docs/sharing.md says how often), so it is asked
for: `cache = model.encode_video(**inputs)`, then `model.generate(**inputs, video_cache=cache)` for each chat, or batch
of chats, that begins with the same video; or `model.generate(**inputs, share_video=True)` for one batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .cache_vidlada import DenoisingStep, SequenceLayout
from .devices_vidlada import execution_device
from .fingerprints_vidlada import fingerprint_checkpoint, fingerprint_visual, is_same_checkpoint
from .kv_cache_vidlada import SelectiveKVCache
from .outputs_vidlada import pooled_features

VISUAL_INPUTS = ("pixel_values", "pixel_values_videos", "num_frames_per_video", "video_features")


@dataclass(frozen=True)
class ChatBeginning:
    """The ids of a chat up to its last visual token, which all prompts of a batch have in common.

    Args:
        input_ids: (tokens,), int64, on the CPU.
    """

    input_ids: torch.Tensor

    owner = "the first prompt"

    @classmethod
    def of(cls, config: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> "ChatBeginning":
        """That of the first of some prompts, (batch, tokens).

        Raises:
            ValueError: it has neither a video nor an image.
        """
        ids = input_ids[0] if attention_mask is None else input_ids[0][attention_mask[0].bool()]
        places = torch.isin(ids, ids.new_tensor([config.video_token_id, config.image_token_id])).nonzero()[:, 0]
        if not len(places):
            raise ValueError("Sharing a video needs a chat with a video or an image, and this one has none.")
        return ChatBeginning(ids[: int(places[-1]) + 1].cpu())

    def __len__(self) -> int:
        """How many tokens it holds."""
        return len(self.input_ids)

    def ready(self, model: Any, visual: Mapping[str, Any], prompts: int, vision_batch_size: int | None) -> "VideoCache":
        """The video cache for a batch of prompts that begin like this: computed here.

        Args:
            model: a `VidLaDAModel`.
            visual: visual arguments of `generate`, of one prompt or of all of them.

        Raises:
            ValueError: they do not show the same, or not as much as the placeholders say.
        """
        visual = visual_of_one(model, self.input_ids, visual, prompts)
        ids = self.input_ids.to(execution_device(model.language_model.embed_tokens))
        embeddings = model.merge_features(ids[None], **visual, vision_batch_size=vision_batch_size)
        video = fingerprint_visual(visual) or "none"
        checkpoint = fingerprint_checkpoint(model, video)
        return compute_video_cache(model.language_model, self.input_ids, embeddings, checkpoint, video)

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
                why = self._difference(ids.cpu())
                raise ValueError(f"Prompt {example} does not begin as {self.owner} does: {why}")
            own.append(ids[len(shared) :])
        rest = torch.nn.utils.rnn.pad_sequence(own, batch_first=True, padding_side="left")
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(i) for i in own], batch_first=True, padding_side="left")
        return rest, mask

    def _difference(self, ids: torch.Tensor) -> str:
        """What is otherwise in a prompt, and the remedy."""
        begins = [int((part == self.input_ids[-1]).int().argmax()) for part in (ids, self.input_ids)]
        if self.input_ids[-1] not in ids:
            return "it has no video. Ask about it in a call of its own."
        if not torch.equal(ids[: begins[0]], self.input_ids[: begins[1]]):
            return (
                "another text stands before its video. What stands there is shared too: write the video first and the "
                "user's text behind it, with the same system message; or encode the video of this chat by itself."
            )
        return (
            f"its video has other frames, or another text stands among its videos ({len(self)} tokens are shared). "
            "Render all chats in the same way, or encode the video of this one by itself."
        )


@dataclass(frozen=True)
class VideoCache(ChatBeginning):
    """Keys and values of the beginning of a chat, up to its last visual token.

    Args:
        input_ids: (tokens,), int64, on the CPU.
        keys, values: a layer, (tokens, key-value heads, head_dim), the keys rotated.
        checkpoint: fingerprint of the parts of the model that computed them, see `fingerprint_checkpoint`.
        video: fingerprint of the pixels or features that they show.
    """

    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]
    checkpoint: str
    video: str

    owner = "the video cache"

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values."""
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values))

    def keys_of(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a layer."""
        return self.keys[layer], self.values[layer]

    def to(self, device: torch.device | str) -> "VideoCache":
        """The same on another device."""
        keys, values = (tuple(tensor.to(device) for tensor in tensors) for tensors in (self.keys, self.values))
        return replace(self, keys=keys, values=values)

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file.

        Raises:
            OSError: the path is a folder, or is in none.
        """
        if Path(path).is_dir():
            raise IsADirectoryError(f"{path} is a folder: name a file to keep the video cache in.")
        if not Path(path).parent.is_dir():
            raise FileNotFoundError(f"{path} cannot be written, since {Path(path).parent} is no folder: make it first.")
        tensors = {"input_ids": self.input_ids, "keys": torch.stack(self.keys), "values": torch.stack(self.values)}
        metadata = {"format": "pt", "checkpoint": self.checkpoint, "video": self.video}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata)

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> "VideoCache":
        """Reads what `save` wrote.

        Raises:
            OSError: there is no such file.
            ValueError: the file is damaged, or holds something else.
        """
        if not Path(path).is_file():
            what = (IsADirectoryError, "a folder") if Path(path).is_dir() else (FileNotFoundError, "not there")
            raise what[0](f"{path} is {what[1]}: give the file that `VideoCache.save` wrote.")
        try:
            with safe_open(path, "pt", device=str(device)) as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in ("input_ids", "keys", "values")}
                ids, fingerprints = tensors["input_ids"].cpu(), (metadata["checkpoint"], metadata["video"])
                return cls(ids, tuple(tensors["keys"]), tuple(tensors["values"]), *fingerprints)
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"{path} is no video cache, or is damaged ({error}): encode the video again.") from error

    def ready(self, model: Any, visual: Mapping[str, Any], prompts: int, vision_batch_size: int | None) -> "VideoCache":
        """Itself, if it belongs to this model, where the model is, and to these pixels or features, if any are given.

        Raises:
            ValueError: it does not.
        """
        again = "encode the video again with `model.encode_video(**inputs)`"
        weight = model.language_model.embed_tokens.weight
        if self.keys[0].dtype != weight.dtype:
            raise ValueError(f"The video cache holds {self.keys[0].dtype}, the model {weight.dtype}: {again}.")
        if not is_same_checkpoint(self.checkpoint, fingerprint_checkpoint(model, self.video)):
            raise ValueError(f"The video cache was made with another checkpoint: {again}.")
        device = execution_device(model.language_model.embed_tokens)
        if self.keys[0].device != device:
            raise ValueError(f"The video cache is on {self.keys[0].device}, the model on {device}: move it with `.to`.")
        if not self._shows(visual, 1) and not self._shows(visual, prompts):
            raise ValueError(f"The video cache was made of another video, or of other frames of it: {again}.")
        return self

    def _shows(self, visual: Mapping[str, Any], copies: int) -> bool:
        """Whether these are so many times its video; True also where they cannot be compared: features and pixels."""
        parts = split_visual(visual, copies) or [dict(visual)]
        videos = [video for video in map(fingerprint_visual, parts) if video is not None]
        kind = self.video.split()[0]
        return all(video == self.video or video.split()[0] != kind for video in videos)


def choose_shared(video_cache: VideoCache | None, share_video: bool) -> VideoCache | Literal[True] | None:
    """What all prompts share: a video cache, or (True) one that is still to be made; None: nothing."""
    if not isinstance(share_video, bool):
        raise ValueError(f"`share_video` must be True or False, got {share_video!r}.")
    if video_cache is not None and not isinstance(video_cache, VideoCache):
        raise ValueError(f"`video_cache` is what `encode_video` returns, got {type(video_cache).__name__}.")
    if video_cache is not None and share_video:
        raise ValueError("`video_cache` holds what `share_video=True` would compute: give one of the two.")
    return True if share_video else video_cache


def split_visual(visual: Mapping[str, Any], copies: int) -> list[dict[str, Any]] | None:
    """The visual arguments of `generate` for each of so many equal prompts; None where they cannot be divided so."""
    given: dict[str, Any] = {name: value for name, value in visual.items() if value is not None}
    if "video_features" in given:
        given["video_features"] = pooled_features(given["video_features"])
    if any(len(value) % copies for value in given.values()):
        return None
    sizes = {name: len(value) // copies for name, value in given.items()}
    return [{name: given[name][i * size : (i + 1) * size] for name, size in sizes.items()} for i in range(copies)]


def visual_of_one(model: Any, input_ids: torch.Tensor, visual: Mapping[str, Any], prompts: int) -> dict[str, Any]:
    """The visual arguments of one of some equal prompts, from those of one or of all.

    Args:
        input_ids: (tokens,), of one prompt.

    Raises:
        ValueError: the prompts' videos or images differ.
    """
    config, given = model.config, 0
    visual = {**visual, "video_features": pooled_features(visual.get("video_features"))}
    if visual.get("pixel_values_videos") is not None:
        given += visual["pixel_values_videos"].shape[:-3].numel() * model.tokens_per_frame
    if visual["video_features"] is not None:
        given += sum(features.shape[:-1].numel() for features in _as_list(visual["video_features"]))
    if visual.get("pixel_values") is not None:
        given += len(visual["pixel_values"]) * (config.vision_grid**2 + 1)
    wanted = int(torch.isin(input_ids, torch.tensor([config.video_token_id, config.image_token_id])).sum())
    first, *others = (split_visual(visual, prompts) if given > wanted else None) or split_visual(visual, 1) or [{}]
    for number, other in enumerate(others, 1):
        if not all(torch.equal(a, b) for name in other for a, b in zip(other[name], first[name], strict=True)):
            raise ValueError(
                f"Prompt {number} shows another video than the first: sharing is for questions about one video. Ask "
                "about each video in a call of its own."
            )
    return first


def _as_list(features: torch.Tensor | Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    return [features] if isinstance(features, torch.Tensor) else features


@torch.no_grad()
def compute_video_cache(
    text_model: Any, input_ids: torch.Tensor, embeddings: torch.Tensor, checkpoint: str, video: str
) -> VideoCache:
    """Runs the beginning of a chat through all layers, each token attending to all of it.

    Args:
        input_ids: (tokens,), int64.
        embeddings: (1, tokens, hidden), visual features merged in.
        checkpoint, video: fingerprints of the model and of what it shows.
    """
    tokens, device = len(input_ids), embeddings.device
    positions = torch.arange(tokens, device=device)[None]
    cache = SelectiveKVCache()
    cache.begin(SequenceLayout(positions, None, torch.full_like(positions, -1), slice(tokens, tokens)))
    cache.denoise(text_model, embeddings, DenoisingStep(0, 0, 0, slice(0, tokens)))
    keys, values = (tuple(kept[layer][:-1] for layer in sorted(kept)) for kept in (cache.keys, cache.values))
    return VideoCache(input_ids.cpu(), keys, values, checkpoint, video)


__all__ = ["VISUAL_INPUTS", "ChatBeginning", "VideoCache", "choose_shared"]
