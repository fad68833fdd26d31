"""Frame-wise chunk attention (arXiv 2601.17868, section 4): a frame sees its neighbours, anchors of others, text.

Tokens are given by their indices in a store of keys and values (see `PackedLayout`). Each frame gets the list of the
keys that it attends to: no key twice, none that it does not see, and so no mask. Frames whose lists are equally long,
of any example, are attended together. Away from the first and last frames all lists are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

# Keys gathered at a time, which bounds the lists' memory: about 8 frames of 210 tokens and their neighbors.
KEYS_AT_ONCE = 8192


@dataclass(frozen=True)
class VideoTokens:
    """Tokens of one example, by their indices in the store, on the CPU.

    Args:
        frames: (tokens,), int64, of each frame, in order. A frame may have any number of tokens.
        others: (tokens,), int64, all that are not of a frame: text, images, canvas, suffix.
    """

    frames: tuple[torch.Tensor, ...]
    others: torch.Tensor

    @property
    def visual(self) -> torch.Tensor:
        """(visual tokens,), int64: all frames' tokens, in order."""
        return torch.cat([*self.frames, self.others[:0]])

    @classmethod
    def of_layout(cls, frame_index: torch.Tensor, is_token: torch.Tensor, indices: torch.Tensor) -> list["VideoTokens"]:
        """Those of each example.

        Args:
            frame_index, is_token, indices: (batch, positions), on the CPU, see `SequenceLayout` and `PackedLayout`.
        """
        videos = []
        for frames, real, index in zip(frame_index, is_token, indices, strict=True):
            visual = real & (frames >= 0)
            by_frame = tuple(index[visual & (frames == frame)] for frame in frames[visual].unique().tolist())
            videos.append(cls(by_frame, index[real & ~visual]))
        return videos

    def frame_of_tokens(self) -> torch.Tensor:
        """(visual tokens,), int64: the frame of each."""
        sizes = torch.tensor([len(tokens) for tokens in self.frames], dtype=torch.int64)
        return torch.arange(len(self.frames)).repeat_interleave(sizes)

    def keys_of(self, frame: int, neighborhood: int, anchors: Sequence[torch.Tensor]) -> torch.Tensor:
        """(keys,), int64: what the tokens of a frame attend to, each key once.

        Args:
            neighborhood: frames on either side that are attended to in full.
            anchors: (anchors,), int64, of each frame.
        """
        first, end = max(frame - neighborhood, 0), frame + neighborhood + 1
        return torch.cat([*self.frames[first:end], *anchors[:first], *anchors[end:], self.others])


@dataclass(frozen=True)
class FrameBatch:
    """Frames attended together.

    Args:
        queries: (frames, tokens), int64.
        keys: (frames, keys), int64.
    """

    queries: torch.Tensor
    keys: torch.Tensor


def batch_frames(
    videos: Sequence[VideoTokens], anchors: Sequence[Sequence[torch.Tensor]], neighborhood: int, device: torch.device
) -> list[FrameBatch]:
    """The frames of some examples, batched by the lengths of their lists.

    Args:
        anchors: of each example, of each frame, (anchors,), int64.
    """
    by_size: dict[tuple[int, int], list[tuple[torch.Tensor, torch.Tensor]]] = {}
    for video, own_anchors in zip(videos, anchors, strict=True):
        for frame, tokens in enumerate(video.frames):
            keys = video.keys_of(frame, neighborhood, own_anchors)
            by_size.setdefault((len(tokens), len(keys)), []).append((tokens, keys))
    batches = []
    for (_, length), frames in by_size.items():
        size = max(KEYS_AT_ONCE // length, 1)
        for start in range(0, len(frames), size):
            parts = zip(*frames[start : start + size], strict=True)
            batches.append(FrameBatch(*(torch.stack(part).to(device) for part in parts)))
    return batches


def attend_by_frames(
    attention: Any,
    query: torch.Tensor,
    offsets: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    batches: Sequence[FrameBatch],
    **kwargs: Any,
) -> torch.Tensor:
    """Attention of frames to their lists of keys.

    Args:
        attention: the layer's `VidLaDAAttention`.
        query: (1, heads, tokens, head_dim), of the tokens of the frames in `batches`, in any order.
        offsets: (all tokens,), int64, where among these a token stands.
        keys, values: (all tokens, key-value heads, head_dim).

    Returns:
        (1, tokens, heads, head_dim).
    """
    _, heads, tokens, head_dim = query.shape
    queries = query[0].transpose(0, 1)
    attended = queries.new_empty(tokens, heads, head_dim)
    for batch in batches:
        here = offsets[batch.queries]
        key, value = (
            kept.index_select(0, batch.keys.flatten()).unflatten(0, batch.keys.shape).transpose(1, 2)
            for kept in (keys, values)
        )
        attended[here] = attention.attend(queries[here].transpose(1, 2), key, value, None, **kwargs)[0]
    return attended[None]


def evenly_spaced(count: int, wanted: int) -> torch.Tensor:
    """(min(count, wanted),), int64: evenly spaced among `count`, from the middle of each stretch."""
    wanted = min(count, wanted)
    return (2 * torch.arange(wanted) + 1) * count // (2 * max(wanted, 1))


def proxy_attention_scores(
    query: torch.Tensor,
    query_frames: torch.Tensor,
    keys: torch.Tensor,
    visual: slice | torch.Tensor,
    key_frames: torch.Tensor,
    neighborhood: int,
    scaling: float,
) -> torch.Tensor:
    """The attention that visual tokens receive from queries outside their neighborhood: the proxy attention map.

    Args:
        query: (heads, queries, head_dim), rotated.
        query_frames: (queries,), int64.
        keys: (tokens, key-value heads, head_dim), all of the example, which the softmax runs over.
        visual: the example's visual tokens among them.
        key_frames: (visual tokens,), int64.
        scaling: of the scores.

    Returns:
        (visual tokens,), float32, the mean over heads and the sum over queries.
    """
    heads = query.shape[0]
    keys = keys.transpose(0, 1).repeat_interleave(heads // keys.shape[1], dim=0)
    weights = (query @ keys.transpose(1, 2) * scaling).float().softmax(-1).mean(0)
    outside = (query_frames[:, None] - key_frames).abs() > neighborhood
    return (weights[:, visual] * outside).sum(0)


def choose_anchors(video: VideoTokens, scores: torch.Tensor, count: int) -> list[torch.Tensor]:
    """The tokens of the highest score in each frame.

    Args:
        scores: (visual tokens,), on the CPU.
        count: anchors a frame; a frame with fewer tokens is refused before (`MARSCache.check`).

    Returns:
        (count,), int64, a frame.
    """
    parts = scores.split([len(tokens) for tokens in video.frames])
    return [tokens[score.topk(count).indices.sort().values] for tokens, score in zip(video.frames, parts, strict=True)]


def invert_indices(indices: torch.Tensor, total: int) -> torch.Tensor:
    """(total,), int64: where each index stands in `indices`; -1 for those that do not."""
    offsets = torch.full((total,), -1)
    offsets[indices] = torch.arange(len(indices))
    return offsets


__all__ = ["FrameBatch", "VideoTokens", "attend_by_frames", "batch_frames"]
