"""Frame-wise chunk attention (arXiv 2601.17868, section 4): a frame sees its neighbors, anchors of others, text.

Tokens are given by their indices in a store of keys and values (see `PackedLayout`). No frame sees a key twice, and
none that it does not attend to, so there is no mask. There are two ways to the same result:

- `WindowedFrames`, where frames are equally large and stand one behind the other, and a kernel tells how much weight it
  gave (flash attention). A frame's neighbors are a window of the store. The anchors of all other frames and the rest
  are a window too, of a short list: anchors of all frames, the rest, anchors of all frames again. From behind its own
  neighborhood on, a frame reads that list until it meets its neighborhood again. Nothing is copied for a frame.
- `GatheredFrames`, for all else: each frame gets a list of its keys, and frames whose lists are equally long are
  attended together.
"""

from dataclasses import dataclass
from typing import Any

import torch

from .cache_vidlada import upload
from .flash_attention_vidlada import flash_attention, has_flash_attention, join_attention

# Keys gathered at a time, which bounds the lists' memory: on a CPU about 8 frames of 210 tokens and their neighbors.
KEYS_AT_ONCE = {"cpu": 8192, "cuda": 65536}


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

    @property
    def sizes(self) -> list[int]:
        """Tokens of each frame."""
        return [len(tokens) for tokens in self.frames]

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
        return torch.arange(len(self.frames)).repeat_interleave(torch.tensor(self.sizes, dtype=torch.int64))

    def neighbors_of(self, frame: int, neighborhood: int) -> range:
        """The frames that a frame attends to in full: so many on either side, and itself."""
        return range(max(frame - neighborhood, 0), min(frame + neighborhood + 1, len(self.frames)))


@dataclass(frozen=True)
class Windows:
    """Windows of equal length, one behind the other at equal distances, which may overlap.

    Args:
        start: of the first.
        step: from the start of one to that of the next.
        count: how many there are.
        length: tokens of each.
    """

    start: int
    step: int
    count: int
    length: int

    def of(self, tokens: torch.Tensor) -> torch.Tensor:
        """(tokens, heads, head_dim) -> (count, heads, length, head_dim), the same memory."""
        token, head, channel = tokens.stride()
        size = (self.count, tokens.shape[1], self.length, tokens.shape[2])
        begin = tokens.storage_offset() + self.start * token
        return tokens.as_strided(size, (self.step * token, head, token, channel), begin)


class WindowedFrames:
    """One example's frames, by windows of the store.

    Args:
        video: see `fits`.
        neighborhood: frames on either side that are attended to in full.
    """

    def __init__(self, video: VideoTokens, neighborhood: int, device: torch.device) -> None:
        self.count, self.size, self.start = len(video.frames), len(video.frames[0]), int(video.frames[0][0])
        self.neighborhood = neighborhood
        self.others = upload(video.others, device)

    @staticmethod
    def fits(video: VideoTokens, neighborhood: int) -> bool:
        """Whether frames are equally large, stand one behind the other, and some frame has all its neighbors."""
        visual = video.visual
        follows = len(visual) > 0 and bool((visual.diff() == 1).all())
        return follows and len(set(video.sizes)) == 1 and len(video.frames) > 2 * neighborhood

    def attend(
        self, attention: Any, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, anchors: torch.Tensor
    ) -> torch.Tensor:
        """Attention of the example's visual tokens.

        Args:
            attention: the layer's `VidLaDAAttention`.
            query: (visual tokens, heads, head_dim).
            keys, values: (all tokens, heads, head_dim), of the whole store.
            anchors: (frames, anchors), int64.

        Returns:
            (visual tokens, heads, head_dim).
        """
        listed = torch.cat([anchors.flatten(), self.others, anchors.flatten()])
        far_keys, far_values = keys[listed], values[listed]
        attended = query.new_empty(query.shape)
        for frames, near, far in self._windows(anchors.shape[1]):
            queries = frames.of(query)
            out, weight = flash_attention(queries, near.of(keys), near.of(values), attention.scaling)
            if far.length:
                others = flash_attention(queries, far.of(far_keys), far.of(far_values), attention.scaling)
                out = join_attention(out, weight, *others)
            frames.of(attended).copy_(out)
        return attended

    def _windows(self, anchors: int) -> list[tuple[Windows, Windows, Windows]]:
        """Of frames that see as many keys: their queries, their neighbors in the store, and in the list what else they
        see. First those in the middle, then the edges two by two."""
        width, last = self.neighborhood, self.count - 1
        return [
            self._windows_of(width, width + 1, self.count - 2 * width, anchors),
            *(self._windows_of(edge, last - edge, 2, anchors) for edge in range(width)),
        ]

    def _windows_of(self, first: int, second: int, count: int, anchors: int) -> tuple[Windows, Windows, Windows]:
        """As `_windows`, of so many frames at equal distances; these are the first two."""
        (begin, end), (next_begin, next_end) = (
            (max(frame - self.neighborhood, 0), min(frame + self.neighborhood + 1, self.count))
            for frame in (first, second)
        )
        seen, size, rest = end - begin, self.size, (self.count - end + begin) * anchors + len(self.others)
        return (
            Windows(first * size, (second - first) * size, count, size),
            Windows(self.start + begin * size, (next_begin - begin) * size, count, seen * size),
            Windows(end * anchors, (next_end - end) * anchors, count, rest),
        )


@dataclass(frozen=True)
class FrameBatch:
    """Frames attended together.

    Args:
        queries: (frames, tokens), int64, among the example's visual tokens.
        near: (frames, keys), int64, of the neighbors, in the store.
        far: (frames, frames), int64, the frames of which anchors are attended to.
    """

    queries: torch.Tensor
    near: torch.Tensor
    far: torch.Tensor


class GatheredFrames:
    """One example's frames, by lists of keys.

    Args:
        neighborhood: frames on either side that are attended to in full.
        anchors: of each frame, how many.
    """

    def __init__(self, video: VideoTokens, neighborhood: int, device: torch.device, anchors: int) -> None:
        self.others = upload(video.others, device)
        starts = [sum(video.sizes[:frame]) for frame in range(len(video.frames))]
        by_size: dict[tuple[int, int, int], list[tuple[torch.Tensor, ...]]] = {}
        for frame, size in enumerate(video.sizes):
            neighbors = video.neighbors_of(frame, neighborhood)
            near = torch.cat([video.frames[i] for i in neighbors])
            far = torch.tensor([i for i in range(len(video.frames)) if i not in neighbors], dtype=torch.int64)
            queries = torch.arange(starts[frame], starts[frame] + size)
            by_size.setdefault((size, len(near), len(far)), []).append((queries, near, far))
        self.batches = []
        for (_, num_near, num_far), frames in by_size.items():
            keys = num_near + num_far * anchors + len(video.others)
            at_once = max(KEYS_AT_ONCE.get(device.type, KEYS_AT_ONCE["cpu"]) // keys, 1)
            for start in range(0, len(frames), at_once):
                parts = zip(*frames[start : start + at_once], strict=True)
                self.batches.append(FrameBatch(*(upload(torch.stack(part), device) for part in parts)))

    def attend(
        self, attention: Any, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, anchors: torch.Tensor
    ) -> torch.Tensor:
        """As `WindowedFrames.attend`; `keys` and `values` may have fewer heads."""
        attended = query.new_empty(query.shape)
        for batch in self.batches:
            others = self.others.expand(len(batch.near), -1)
            listed = torch.cat([batch.near, anchors[batch.far].flatten(1), others], dim=1)
            key, value = (
                kept.index_select(0, listed.flatten()).unflatten(0, listed.shape).transpose(1, 2)
                for kept in (keys, values)
            )
            attended[batch.queries] = attention.attend(query[batch.queries].transpose(1, 2), key, value, None)[0]
        return attended


def attention_by_frames(
    video: VideoTokens, neighborhood: int, anchors: int, attention: Any, query: torch.Tensor
) -> WindowedFrames | GatheredFrames:
    """By windows where that can be, else by lists.

    Args:
        anchors: of each frame, how many.
        attention, query: of some layer; (..., heads, head_dim).
    """
    if WindowedFrames.fits(video, neighborhood) and has_flash_attention(attention, query):
        return WindowedFrames(video, neighborhood, query.device)
    return GatheredFrames(video, neighborhood, query.device, anchors)


class AnchorSearch:
    """Finds the anchors of one example: in each frame the tokens that proxies in far frames look at most.

    Args:
        neighborhood: frames on either side that are not far.
        anchors: of each frame, how many. A frame with fewer tokens is refused before (`MARSCache.check`).
        queries: how many visual tokens are proxies, evenly spaced.

    Attributes:
        proxies: (queries,), int64, on the CPU, in the store.
    """

    def __init__(self, video: VideoTokens, neighborhood: int, anchors: int, queries: int, device: torch.device) -> None:
        self.neighborhood, self.anchors, self.sizes = neighborhood, anchors, video.sizes
        visual, frames = video.visual, video.frame_of_tokens()
        proxies = evenly_spaced(len(visual), queries)
        self.proxies = visual[proxies]
        starts = torch.tensor([sum(self.sizes[:frame]) for frame in range(len(self.sizes))], dtype=torch.int64)
        self.visual, self.frames, self.proxy_frames, self.starts = (
            upload(tensor, device) for tensor in (visual, frames, frames[proxies], starts)
        )

    def score(self, query: torch.Tensor, keys: torch.Tensor, stretch: slice, scaling: float) -> torch.Tensor:
        """(visual tokens,), float32: the attention that each receives from proxies in other frames.

        Args:
            query: (heads, queries, head_dim), of the proxies.
            keys: (all tokens, key-value heads, head_dim), of which those in `stretch` are the example's.
        """
        device = query.device
        return proxy_attention_scores(
            query,
            self.proxy_frames.to(device),
            keys[stretch],
            self.visual.to(device) - stretch.start,
            self.frames.to(device),
            self.neighborhood,
            scaling,
        )

    def choose(self, scores: torch.Tensor) -> torch.Tensor:
        """(visual tokens,) -> (frames, anchors), int64: in each frame the tokens of the highest score, in order."""
        by_frame = torch.nn.utils.rnn.pad_sequence(
            list(scores.split(self.sizes)), batch_first=True, padding_value=-torch.inf
        )
        best = by_frame.topk(self.anchors, dim=-1).indices.sort(dim=-1).values
        return self.visual.to(scores.device)[self.starts.to(scores.device)[:, None] + best]


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


def invert_indices(indices: torch.Tensor, total: int) -> torch.Tensor:
    """(total,), int64: where each index stands in `indices`; -1 for those that do not."""
    offsets = torch.full((total,), -1)
    offsets[indices] = torch.arange(len(indices))
    return offsets


__all__ = ["AnchorSearch", "GatheredFrames", "VideoTokens", "WindowedFrames", "attention_by_frames"]
