"""MARS-Cache: visual and text tokens are refreshed at their own pace, deep layers more often than shallow ones.

The first open implementation of arXiv 2601.17868, section 4 and appendices E and F. What the paper leaves open is
decided here, and said in `MARSCacheConfig`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from .arguments_vidlada import check_choice, check_interval, check_whole
from .cache_vidlada import DenoisingStep, SequenceLayout
from .chunk_attention_vidlada import (
    FrameBatch,
    VideoTokens,
    attend_by_frames,
    batch_frames,
    choose_anchors,
    evenly_spaced,
    invert_indices,
    proxy_attention_scores,
)
from .kv_cache_vidlada import ComputedTokens, SelectiveKVCache


@dataclass(frozen=True)
class MARSCacheConfig:
    """The settings of `MARSCache`.

    The layers form as many groups, equally large, as there are intervals. The intervals, the number of anchors and the
    proxy's layer are not published. The defaults are ours: a pyramid that doubles from group to group and keeps the
    paper's ratio of 2 between visual and text, the shortest that a budget of a few visual refreshes over 128 steps
    allows. On the embedded checkpoint they cost 0.3 points of 5,040 questions (docs/results.md); on the 8B that is not
    measured.

    Args:
        visual_intervals, text_intervals: steps from one refresh of visual tokens, and of all other tokens outside the
            block, to the next, a group of layers, shallow first. Each is a whole multiple of the one behind it, so that
            whatever is refreshed in a shallow group is refreshed in all deeper ones too. None: never after the first
            step.
        neighborhood: frames on either side that a frame attends to in full when it is refreshed (paper: 1). None: all
            frames, no chunk attention.
        anchors: tokens of every other frame that a frame attends to besides. The paper does not say how many.
        anchor_choice: "attention" (the paper's search) or "random" (for comparison).
        anchor_seed: of the random choice.
        proxy_queries: evenly spaced visual tokens whose attention is looked at for the search (paper: 32 in the method,
            128 best in the ablation).
        proxy_layers: the layers whose attention is looked at, their maps added up. None: the middle one. The paper does
            not say which.
        first_step: "full": an example's first step runs full attention, and the search looks at it (paper). "chunked":
            it runs chunk attention, with anchors that the proxy queries alone find: up to the last proxy layer in each
            layer anew.

    Raises:
        ValueError: an impossible value; intervals that are no such pyramids, or not as many for text as for visual
            tokens.
    """

    visual_intervals: tuple[int | None, ...] = (128, 64, 32, 16)
    text_intervals: tuple[int | None, ...] = (64, 32, 16, 8)
    neighborhood: int | None = 1
    anchors: int = 4
    anchor_choice: str = "attention"
    anchor_seed: int = 0
    proxy_queries: int = 128
    proxy_layers: tuple[int, ...] | None = None
    first_step: str = "full"

    def __post_init__(self) -> None:
        for field in fields(self):  # JSON knows lists only
            if isinstance(getattr(self, field.name), list):
                object.__setattr__(self, field.name, tuple(getattr(self, field.name)))
        for name in ("visual_intervals", "text_intervals"):
            check_pyramid(name, getattr(self, name))
        if len(self.visual_intervals) != len(self.text_intervals):
            raise ValueError(
                f"`visual_intervals` has {len(self.visual_intervals)} groups of layers and `text_intervals` "
                f"{len(self.text_intervals)}: give both one interval for each group."
            )
        if self.neighborhood is not None:
            check_whole("neighborhood", self.neighborhood, 0, " frames, or None for all")
        check_whole("anchors", self.anchors, 0, " tokens a frame")
        check_whole("anchor_seed", self.anchor_seed, 0)
        check_whole("proxy_queries", self.proxy_queries, 1)
        if self.proxy_layers is not None and (not isinstance(self.proxy_layers, tuple) or not self.proxy_layers):
            raise ValueError(
                f"`proxy_layers` must be a list of at least one layer, or None for the middle one, "
                f"got {self.proxy_layers!r}."
            )
        for layer in self.proxy_layers or ():
            check_whole("proxy_layers", layer, 0, " each")
        check_choice("anchor_choice", self.anchor_choice, ("attention", "random"))
        check_choice("first_step", self.first_step, ("full", "chunked"))

    @property
    def groups(self) -> int:
        """How many groups of layers there are."""
        return len(self.visual_intervals)


@dataclass(frozen=True)
class RefreshPlan:
    """What one example refreshes in a step: for each kind of tokens, from which group of layers on.

    Args:
        visual, text: the shallowest group refreshed; the number of groups where none is.
        full: whether visual tokens attend to everything.
    """

    visual: int
    text: int
    full: bool = False


@dataclass(frozen=True, kw_only=True)
class GroupTokens(ComputedTokens):
    """The tokens that a group of layers computes in one step.

    Args:
        framewise: examples whose visual tokens attend by frames.
        searching: examples whose anchors are searched for.
    """

    framewise: tuple[int, ...]
    searching: tuple[int, ...]


class MARSCache(SelectiveKVCache):
    """Named "mars". Keeps keys and values of all tokens, and the hidden states with which they entered each group.

    The tokens of the block are computed in every step, through all layers. What else is computed is decided for each
    example, kind of tokens and group:

    - Tokens of a kind that is refreshed from group g on enter that group with the hidden states stored when they last
      passed there (the embeddings, for the first group), run through it and all deeper groups, and leave their hidden
      states at each boundary that they pass. Groups before g are not run for them.
    - "Visual" are the tokens of frames; "text" are all others outside the block: the prompt's text and images, finished
      blocks, later masks, a suffix. In a block's first step the block before is computed along with it, so that tokens
      committed last are never stored as masks.
    - Visual tokens attend as `chunk_attention_vidlada` says, all others to everything. An example with at most
      `neighborhood` + 1 frames is within every frame's neighborhood, and attends to everything.

    An example without frames has text only. Frames are neighbors by their numbers in the layout, also from one video of
    a prompt to the next.

    Args:
        config: by default `MARSCacheConfig()`.

    Attributes:
        refreshed: what the latest `generate` refreshed: for each step the `RefreshPlan` of each example, None where it
            had nothing to do. Kept after `end`.
    """

    def __init__(self, config: MARSCacheConfig | None = None) -> None:
        self.config = MARSCacheConfig() if config is None else config
        if not isinstance(self.config, MARSCacheConfig):
            raise ValueError(f"MARSCache takes a MARSCacheConfig, got {config!r}.")
        self.refreshed: list[list[RefreshPlan | None]] = []

    def check(self, text_config: Any, layout: SequenceLayout) -> None:
        """Refuses more groups than layers, proxy layers that are not there, more anchors than a frame has tokens."""
        layers, config = text_config.num_hidden_layers, self.config
        if config.groups > layers:
            raise ValueError(
                f"{config.groups} groups of layers (the number of `visual_intervals` and of `text_intervals`) are more "
                f"than the {layers} layers of the text model: give at most {layers}."
            )
        for layer in config.proxy_layers or ():
            if layer >= layers:
                raise ValueError(f"`proxy_layers` names layer {layer}; the text model has layers 0 to {layers - 1}.")
        for example, frames in enumerate(layout.frame_index.cpu()):
            sizes = frames[frames >= 0].unique(return_counts=True)[1]
            if self._is_chunked(len(sizes)) and config.anchors > (fewest := int(sizes.amin())):
                raise ValueError(
                    f"`anchors` ({config.anchors}) must not exceed the {fewest} tokens of a frame (example {example} "
                    f"of the batch): take at most {fewest}."
                )

    def _is_chunked(self, frames: int) -> bool:
        """Whether visual tokens of so many frames attend by frames: some frame has others out of its neighborhood."""
        width = self.config.neighborhood
        return width is not None and frames > width + 1

    def begin(self, layout: SequenceLayout) -> None:
        super().begin(layout)
        self.videos = VideoTokens.of_layout(layout.frame_index.cpu(), self.packed.is_token, self.packed.indices)
        self.is_chunked = [self._is_chunked(len(video.frames)) for video in self.videos]
        self.boundaries: dict[int, torch.Tensor] = {}  # group -> (tokens, hidden), what entered it
        self.refreshed = []
        self.anchors: dict[int, list[torch.Tensor]] = {}  # example -> of each frame, (anchors,)
        if self.config.anchor_choice == "random" or self.config.anchors == 0:
            chunked = [i for i, is_chunked in enumerate(self.is_chunked) if is_chunked]
            self.anchors = {i: self._random_anchors(self.videos[i]) for i in chunked}
        self._scores: dict[int, torch.Tensor] = {}  # example -> (visual tokens,), summed over proxy layers
        self._last_blocks: list[slice | None] = [None] * len(self.videos)  # of each example
        self._frame_batches: dict[Any, tuple[list[FrameBatch], torch.Tensor]] = {}  # (examples, device) ->

    def end(self) -> None:
        super().end()
        self.boundaries, self._frame_batches, self._scores = {}, {}, {}

    # --- what is refreshed -------------------------------------------------------------------------------------------

    def schedule(self, steps: Sequence[DenoisingStep]) -> dict[str, torch.Tensor]:
        groups = torch.arange(self.config.groups)
        pyramids = {"visual": self.config.visual_intervals, "text": self.config.text_intervals}
        return {
            kind: torch.stack([groups >= first_due(pyramid, step.index) for step in steps])
            for kind, pyramid in pyramids.items()
        }

    def _plan(self, step: DenoisingStep) -> list[RefreshPlan | None]:
        """What each example refreshes, by a clock that counts the example's own steps; None where it is not active."""
        visual, text = self.config.visual_intervals, self.config.text_intervals
        return [
            RefreshPlan(first_due(visual, done), first_due(text, done), done == 0 and self.config.first_step == "full")
            if active
            else None
            for active, done in zip(self.packed.active(step), self.steps_done, strict=True)
        ]

    # --- one step ----------------------------------------------------------------------------------------------------

    def denoise(self, text_model: Any, inputs_embeds: torch.Tensor, step: DenoisingStep) -> torch.Tensor:
        """Runs the block and whatever is refreshed, group by group; in one go where nothing is."""
        layers, groups = len(text_model.layers), self.config.groups
        plans = self._plan(step)
        self.refreshed.append(plans)
        hidden_states: Any = None
        searching = tuple(
            i for i, plan in enumerate(plans) if plan is not None and self.is_chunked[i] and i not in self.anchors
        )
        blocks, is_new_block = self._mark_blocks(step)
        is_refreshing = any(plan is not None and min(plan.visual, plan.text) < groups for plan in plans)
        if not is_refreshing and not is_new_block:
            computed = self._tokens_of_group(0, step, blocks, plans, searching)
            hidden_states = self.compute(text_model, self.embeddings(inputs_embeds, computed), computed)
            return self.finish_step(hidden_states, computed, step)
        for group in range(groups):
            computed = self._tokens_of_group(group, step, blocks, plans, searching)
            hidden_states = None  # what enters is a copy, and each layer's input is let go of: both keep the peak down
            if group:
                hidden_states = self.boundaries[group][computed.indices]
            else:
                hidden_states = self.embeddings(inputs_embeds, computed)
            for layer in range(group * layers // groups, (group + 1) * layers // groups):
                hidden_states = self.compute(text_model, hidden_states, computed, range(layer, layer + 1))
            if group + 1 < groups:
                self.on_group_end(group, hidden_states, computed)
        return self.finish_step(hidden_states, computed, step)

    def _mark_blocks(self, step: DenoisingStep) -> tuple[torch.Tensor, bool]:
        """(batch, positions), bool: the block, and in its first step the one before; and whether it was the first."""
        active = self.packed.active(step)
        marked, is_new_block = self.packed.mark(step.span, active), False
        for example, last in enumerate(self._last_blocks):
            if active[example] and last != step.span:
                is_new_block = True
                self._last_blocks[example] = step.span
                if last is not None:
                    marked[example, last] = True
        return marked, is_new_block

    def _tokens_of_group(
        self,
        group: int,
        step: DenoisingStep,
        blocks: torch.Tensor,
        plans: Sequence[RefreshPlan | None],
        searching: tuple[int, ...],
    ) -> GroupTokens:
        """The tokens that a group of layers computes.

        Args:
            blocks: (batch, positions), bool, what is computed whatever is refreshed.
        """
        packed = self.packed
        visual = torch.tensor([plan is not None and plan.visual <= group for plan in plans])
        text = torch.tensor([plan is not None and plan.text <= group for plan in plans])
        by_frames = torch.tensor([plan is not None and not plan.full for plan in plans])
        by_frames &= visual & torch.tensor(self.is_chunked)
        refreshed = torch.where(packed.is_visual, visual[:, None], text[:, None]) & packed.is_token
        marked = (blocks | refreshed) & ~(packed.is_visual & by_frames[:, None])
        framewise = tuple(by_frames.nonzero()[:, 0].tolist())
        key = (marked.numpy().tobytes(), framewise, searching, step.span.start, step.span.stop, step.active)
        if key not in self._selections:
            first = torch.cat([self.videos[i].visual for i in framewise]) if framewise else None
            tokens = packed.select(marked, step, first)
            self._selections[key] = GroupTokens(**vars(tokens), framewise=framewise, searching=searching)
        return self._selections[key]

    def on_group_end(self, group: int, hidden_states: torch.Tensor, computed: ComputedTokens) -> None:
        """Stores what left a group of layers, (tokens, hidden), as what enters the next."""
        if group + 1 not in self.boundaries:
            size = (len(self.packed.flat_positions), hidden_states.shape[-1])
            self.boundaries[group + 1] = hidden_states.new_zeros(size)
        self.boundaries[group + 1].index_copy_(0, computed.indices.to(hidden_states.device), hidden_states)

    # --- attention ---------------------------------------------------------------------------------------------------

    def attend(  # type: ignore[override]
        self,
        attention: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        *,
        computed: GroupTokens,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Stores keys and values; visual tokens that are refreshed attend by frames, all others to everything."""
        keys, values = self.store(attention.layer_idx, key, value, computed)
        self._search_anchors(attention, query, keys, computed)
        first = computed.num_framewise
        others = self.attend_to_all(attention, query[:, :, first:], keys, values, computed, **kwargs)
        if not first:
            return others
        batches, offsets = self._batches_of(computed.framewise, query.device)
        visual = attend_by_frames(attention, query[:, :, :first], offsets, keys, values, batches, **kwargs)
        return torch.cat([visual, others], dim=1)

    def _batches_of(self, examples: tuple[int, ...], device: torch.device) -> tuple[list[FrameBatch], torch.Tensor]:
        """The frames of these examples in batches, and where each visual token stands among those computed."""
        if (examples, device) not in self._frame_batches:
            videos, anchors = [self.videos[i] for i in examples], [self.anchors[i] for i in examples]
            indices = torch.cat([video.visual for video in videos])
            assert self.config.neighborhood is not None  # without one no example is chunked
            batches = batch_frames(videos, anchors, self.config.neighborhood, device)
            offsets = invert_indices(indices, len(self.packed.flat_positions)).to(device)
            self._frame_batches[examples, device] = batches, offsets
        return self._frame_batches[examples, device]

    def _search_anchors(self, attention: Any, query: torch.Tensor, keys: torch.Tensor, computed: GroupTokens) -> None:
        """Adaptive anchor search, in an example's first step, at the proxy layers.

        A chunked first step needs anchors before the first proxy layer too: there each layer's own are taken.
        """
        layer, proxy_layers = attention.layer_idx, self._proxy_layers(attention)
        if not computed.searching or layer > max(proxy_layers):
            return
        offsets = invert_indices(computed.indices.cpu(), len(self.packed.flat_positions))
        for example in computed.searching:
            is_proxy = layer in proxy_layers
            if not is_proxy and (self.config.first_step == "full" or example in self._scores):
                continue
            scores = self._proxy_scores(example, attention, query, keys, offsets)
            if is_proxy:
                scores = self._scores[example] = scores + self._scores.get(example, 0)
            self.anchors[example] = choose_anchors(self.videos[example], scores, self.config.anchors)
            self._frame_batches.clear()

    def _proxy_layers(self, attention: Any) -> tuple[int, ...]:
        """The layers whose attention the search looks at."""
        return self.config.proxy_layers or (attention.config.num_hidden_layers // 2,)

    def _proxy_scores(
        self, example: int, attention: Any, query: torch.Tensor, keys: torch.Tensor, offsets: torch.Tensor
    ) -> torch.Tensor:
        """(visual tokens,), on the CPU: the attention that each receives in this layer from proxies in other frames.

        Args:
            offsets: (all tokens,), where each stands among the queries.
        """
        video, device = self.videos[example], query.device
        start = self.packed.offsets[example]
        indices, frames = video.visual, video.frame_of_tokens()
        proxies = evenly_spaced(len(indices), self.config.proxy_queries)
        return proxy_attention_scores(
            query=query[0][:, offsets[indices[proxies]].to(device)],
            query_frames=frames[proxies].to(device),
            keys=keys[start : start + self.packed.lengths[example]],
            visual=(indices - start).to(device),
            key_frames=frames.to(device),
            neighborhood=self.config.neighborhood or 0,
            scaling=attention.scaling,
        ).cpu()

    def _random_anchors(self, video: VideoTokens) -> list[torch.Tensor]:
        """(anchors,) of each frame; the same for an example wherever it stands in a batch."""
        generator = torch.Generator().manual_seed(self.config.anchor_seed)
        return choose_anchors(video, torch.rand(len(video.visual), generator=generator), self.config.anchors)


def first_due(pyramid: Sequence[int | None], steps_done: int) -> int:
    """The shallowest group that is refreshed after so many steps; the number of groups where none is."""
    due = [steps_done == 0 or (interval is not None and steps_done % interval == 0) for interval in pyramid]
    return due.index(True) if True in due else len(pyramid)


def check_pyramid(name: str, intervals: Any) -> None:
    """A ValueError that names the first value which is no interval, or no multiple of the one behind it."""
    if not isinstance(intervals, tuple) or not intervals:
        raise ValueError(f"`{name}` must hold an interval for each group of layers, shallow first, got {intervals!r}.")
    for interval in intervals:
        check_interval(name, interval)
    for group, (shallow, deep) in enumerate(zip(intervals, intervals[1:], strict=False)):
        if shallow is not None and (deep is None or shallow % deep):
            raise ValueError(
                f"`{name}` {intervals}: the interval of group {group} ({shallow}) is not a multiple of the one of the "
                f"deeper group {group + 1} ({deep}), which must be refreshed whenever it is. Take multiples, such as "
                "(64, 32, 16, 16)."
            )


__all__ = ["MARSCache", "MARSCacheConfig", "RefreshPlan"]
