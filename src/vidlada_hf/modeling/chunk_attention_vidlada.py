"""Frame-wise chunk attention (arXiv 2601.17868, section 4): a frame sees its neighbors, anchors of others, text.

Tokens are given by their indices in a store of keys and values (see `PackedLayout`). No frame sees a key twice, and none
that it does not attend to, so there is no mask. There are two ways to the same result:

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
from .flash_attention_vidlada import flash_attention, has_flash_attention

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
        ring = torch.cat([anchors.flatten(), self.others, anchors.flatten()])
        far_keys, far_values = keys[ring], values[ring]
        attended = query.new_empty(query.shape)
        for first, step, count in self._rows_of_frames():
            near, far = self._windows(first, step, anchors.shape[1])
            queries = read_windows(query, first * self.size, step * self.size, count, self.size)
            out, weight = flash_attention(
                queries, *(read_windows(x, *near[:2], count, near[2]) for x in (keys, values)), attention.scaling
            )
            if far[2]:
                far_out, far_weight = flash_attention(
                    queries,
                    *(read_windows(x, *far[:2], count, far[2]) for x in (far_keys, far_values)),
                    attention.scaling,
                )
                out = torch.lerp(far_out, out, (weight - far_weight).sigmoid().to(out.dtype)[..., None])
            read_windows(attended, first * self.size, step * self.size, count, self.size).copy_(out)
        return attended

    def _rows_of_frames(self) -> list[tuple[int, int, int]]:
        """First frame, distance, number: frames that see as much. Those in the middle, and the edges two by two."""
        width, last = self.neighborhood, self.count - 1
        middle = (width, 1, self.count - 2 * width)
        return [middle, *((edge, last - 2 * edge, 2) for edge in range(width))]

    def _windows(self, first: int, step: int, anchors: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Start, distance and length of the neighbors' windows in the store, and of the others' in the list."""
        width, last = self.neighborhood, self.count - 1
        begins = [max(frame - width, 0) for frame in (first, first + step)]
        end = min(first + width, last) + 1
        seen = end - begins[0]
        near = (self.start + begins[0] * self.size, (begins[1] - begins[0]) * self.size, seen * self.size)
        # Behind the neighborhood of the frame, in the list; the last frame's neighborhood ends with the first anchors.
        ends = [min(frame + width, last) + 1 for frame in (first, first + step)]
        far = (end * anchors, (ends[1] - ends[0]) * anchors, (self.count - seen) * anchors + len(self.others))
        return near, far


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
        starts, by_size = [sum(video.sizes[:frame]) for frame in range(len(video.frames))], {}
        for frame, size in enumerate(video.sizes):
            neighbors = video.neighbors_of(frame, neighborhood)
            near = torch.cat([video.frames[i] for i in neighbors])
            far = torch.tensor([i for i in range(len(video.frames)) if i not in neighbors], dtype=torch.int64)
            queries = torch.arange(starts[frame], starts[frame] + size)
            by_size.setdefault((size, len(near), len(far)), []).append((queries, near, far))
        self.batches = []
        for (_, near, far), frames in by_size.items():
            keys = near + far * anchors + len(video.others)
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


def read_windows(tokens: torch.Tensor, start: int, step: int, count: int, length: int) -> torch.Tensor:
    """Windows of `length` tokens, which begin `step` tokens apart and may overlap: no copy.

    Args:
        tokens: (tokens, heads, head_dim).

    Returns:
        (count, heads, length, head_dim).
    """
    token, head, channel = tokens.stride()
    size = (count, tokens.shape[1], length, tokens.shape[2])
    return tokens.as_strided(size, (step * token, head, token, channel), tokens.storage_offset() + start * token)


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
