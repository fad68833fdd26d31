"""MARS-Cache: visual and text tokens are refreshed at their own pace, deep layers more often than shallow ones.

The first open implementation of arXiv 2601.17868, section 4 and appendices E and F. What the paper leaves open is
decided here, and said in `MARSCacheConfig`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from .arguments_vidlada import check_choice, check_interval, check_whole
from .cache_vidlada import DenoisingStep, SequenceLayout, upload
from .chunk_attention_vidlada import AnchorSearch, VideoTokens, attention_by_frames, invert_indices
from .kv_cache_vidlada import ComputedTokens, SelectiveKVCache, TokenPlan


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
        proxies: of each of these, (queries,), int64, where its proxies stand among these tokens.
    """

    framewise: tuple[int, ...]
    searching: tuple[int, ...]
    proxies: tuple[torch.Tensor, ...]


class MARSCache(SelectiveKVCache):
    """Named "mars" (MARS-Cache, arXiv 2601.17868): visual and text tokens are recomputed at intervals of their own,
    deep groups of layers more often than shallow ones, the block in every step.

    Keys and values of all tokens are kept, and the hidden states with which they entered each group.
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

    captures = True

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
        config, device = self.config, layout.position_ids.device
        self.videos = VideoTokens.of_layout(layout.frame_index.cpu(), self.packed.is_token, self.packed.indices)
        self.is_chunked = [self._is_chunked(len(video.frames)) for video in self.videos]
        self.boundaries: dict[int, torch.Tensor] = {}  # group -> (tokens + 1, hidden), what entered it
        self.refreshed = []
        self._searches = {  # of each example that needs anchors
            i: AnchorSearch(video, config.neighborhood or 0, config.anchors, config.proxy_queries, device)
            for i, video in enumerate(self.videos)
            if self.is_chunked[i]
        }
        self.anchors: dict[int, torch.Tensor] = {}  # example -> (frames, anchors), int64, on the device
        if config.anchor_choice == "random" or config.anchors == 0:
            self.anchors = {i: self._random_anchors(search) for i, search in self._searches.items()}
        self._scores: dict[int, torch.Tensor] = {}  # example -> (visual tokens,), summed over proxy layers
        self._last_blocks: list[slice | None] = [None] * len(self.videos)  # of each example
        self._by_frames: dict[Any, Any] = {}  # (example, device) -> how its frames attend

    def end(self) -> None:
        super().end()
        self.boundaries, self._by_frames, self._scores, self._searches = {}, {}, {}, {}

    # --- what is refreshed -------------------------------------------------------------------------------------------

    def schedule(self, steps: Sequence[DenoisingStep]) -> dict[str, torch.Tensor]:
        groups = torch.arange(self.config.groups)
        pyramids = {"visual": self.config.visual_intervals, "text": self.config.text_intervals}
        schedule = {
            kind: torch.stack([groups >= first_due(pyramid, step.index) for step in steps])
            for kind, pyramid in pyramids.items()
        }
        if self.layout is not None and self.layout.shared is not None:  # what is shared is never computed again
            schedule["visual"] = torch.zeros_like(schedule["visual"])
        return schedule

    def _refresh_plans(self, step: DenoisingStep) -> list[RefreshPlan | None]:
        """What each example refreshes, by a clock that counts the example's own steps; None where it is not active."""
        visual, text = self.config.visual_intervals, self.config.text_intervals
        return [
            RefreshPlan(first_due(visual, done), first_due(text, done), done == 0 and self.config.first_step == "full")
            if active
            else None
            for active, done in zip(self.packed.active(step), self.steps_done, strict=True)
        ]

    # --- one step ----------------------------------------------------------------------------------------------------

    def plan(self, step: DenoisingStep) -> TokenPlan:
        """The tokens of each group; one for all layers where only the block is computed. Steps that refresh visual
        tokens are too large to gain from being captured."""
        groups, plans = self.config.groups, self._refresh_plans(step)
        self.refreshed.append(plans)
        blocks, is_new_block = self._blocks_to_compute(step)
        is_quiet = not is_new_block and all(plan is None or min(plan.visual, plan.text) >= groups for plan in plans)
        kept = is_quiet and self.keeps_shape
        if kept:
            blocks = ((step.span,),) * len(plans)
        tokens = tuple(
            self._tokens_of_group(group, step, blocks, plans, kept) for group in range(1 if is_quiet else groups)
        )
        repeats = all(plan is None or plan.visual >= groups for plan in plans)
        return self.finish_plan(step, tokens, repeats, with_finished=kept)

    def run(self, text_model: Any, inputs_embeds: torch.Tensor, plan: TokenPlan) -> torch.Tensor:
        """Runs the block and whatever is refreshed, group by group; in one go where nothing is."""
        layers, groups = len(text_model.layers), len(plan.groups)
        hidden_states: Any = None
        for group, computed in enumerate(plan.groups):
            hidden_states = None  # what enters is a copy: the peak stays down
            if group:
                hidden_states = self.boundaries[group][computed.indices]
            else:
                hidden_states = self.embeddings(inputs_embeds, computed)
            span = range(group * layers // groups, (group + 1) * layers // groups)
            hidden_states = self.compute(text_model, hidden_states, computed, span)
            if group + 1 < groups:
                self.on_group_end(group, hidden_states, computed)
        return self.read_block(hidden_states, computed, plan)

    def _blocks_to_compute(self, step: DenoisingStep) -> tuple[tuple[tuple[slice, ...], ...], bool]:
        """Of each example the block, and in its first step there the one before; and whether it was any's first."""
        blocks: list[tuple[slice, ...]] = []
        is_new_block = False
        for example, is_active in enumerate(self.packed.active(step)):
            last = self._last_blocks[example]
            if not is_active:
                blocks.append(())
            elif last == step.span:
                blocks.append((step.span,))
            else:
                blocks.append((step.span,) if last is None else (last, step.span))
                is_new_block, self._last_blocks[example] = True, step.span
        return tuple(blocks), is_new_block

    def _tokens_of_group(
        self,
        group: int,
        step: DenoisingStep,
        blocks: tuple[tuple[slice, ...], ...],
        plans: Sequence[RefreshPlan | None],
        with_finished: bool,
    ) -> GroupTokens:
        """The tokens that a group of layers computes.

        Args:
            blocks: of each example, the spans that are computed whatever is refreshed.
            with_finished: whether examples that are not active are among them.
        """
        visual = tuple(plan is not None and plan.visual <= group for plan in plans)
        text = tuple(plan is not None and plan.text <= group for plan in plans)
        framewise = tuple(
            i for i, plan in enumerate(plans) if plan is not None and visual[i] and not plan.full and self.is_chunked[i]
        )
        searching = tuple(i for i in self._searches if plans[i] is not None and i not in self.anchors)
        spans = tuple((block.start, block.stop) for example in blocks for block in example)
        key = (visual, text, framewise, searching, spans, step.span.start, self.packed.active(step), with_finished)
        if key not in self._selections:
            self._selections[key] = self._select_group(
                step, blocks, (visual, text), framewise, searching, with_finished
            )
        return self._selections[key]

    def _select_group(
        self,
        step: DenoisingStep,
        blocks: tuple[tuple[slice, ...], ...],
        refreshed: tuple[tuple[bool, ...], tuple[bool, ...]],
        framewise: tuple[int, ...],
        searching: tuple[int, ...],
        with_finished: bool,
    ) -> GroupTokens:
        """As `_tokens_of_group`; `refreshed`: of each example, whether visual tokens are, and all others."""
        packed, (visual, text) = self.packed, (torch.tensor(kind)[:, None] for kind in refreshed)
        marked = torch.where(packed.is_visual, visual, text) & packed.is_token
        for example, own in enumerate(blocks):
            for block in own:
                marked[example, block] = packed.is_token[example, block]
        for example in framewise:
            marked[example] &= ~packed.is_visual[example]
        first = torch.cat([self.videos[i].visual for i in framewise]) if framewise else None
        tokens = packed.select(marked, step, first, with_finished)
        proxies: tuple[torch.Tensor, ...] = ()
        if searching:
            indices = packed.indices[marked] if first is None else torch.cat([first, packed.indices[marked]])
            offsets = invert_indices(indices, len(packed.flat_positions))
            proxies = tuple(packed.upload(offsets[self._searches[i].proxies]) for i in searching)
        return GroupTokens(**vars(tokens), framewise=framewise, searching=searching, proxies=proxies)

    def on_group_end(self, group: int, hidden_states: torch.Tensor, computed: ComputedTokens) -> None:
        """Stores what left a group of layers, (tokens, hidden), as what enters the next."""
        if group + 1 not in self.boundaries:
            size = (len(self.packed.flat_positions) + 1, hidden_states.shape[-1])
            self.boundaries[group + 1] = hidden_states.new_zeros(size)
        self.boundaries[group + 1].index_copy_(0, computed.slots.to(hidden_states.device), hidden_states)

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
        parts, begin = [], 0
        for example in computed.framewise:
            end = begin + sum(self.videos[example].sizes)
            queries, anchors = query[0, :, begin:end].transpose(0, 1), self.anchors[example].to(query.device)
            parts.append(self._frames_of(example, attention, queries).attend(attention, queries, keys, values, anchors))
            begin = end
        others = self.attend_to_all(attention, query[:, :, begin:], keys, values, computed, **kwargs)
        return torch.cat([*(part[None] for part in parts), others], dim=1) if parts else others

    def _frames_of(self, example: int, attention: Any, query: torch.Tensor) -> Any:
        """How the frames of an example attend."""
        if (example, query.device) not in self._by_frames:
            width, anchors = self.config.neighborhood, self.config.anchors
            assert width is not None  # without one no example is chunked
            by_frames = attention_by_frames(self.videos[example], width, anchors, attention, query)
            self._by_frames[example, query.device] = by_frames
        return self._by_frames[example, query.device]

    def _search_anchors(self, attention: Any, query: torch.Tensor, keys: torch.Tensor, computed: GroupTokens) -> None:
        """Adaptive anchor search, in an example's first step, at the proxy layers.

        A chunked first step needs anchors before the first proxy layer too: there each layer's own are taken.
        """
        layer, proxy_layers = attention.layer_idx, self._proxy_layers(attention)
        if not computed.searching or layer > max(proxy_layers):
            return
        is_proxy = layer in proxy_layers
        for example, proxies in zip(computed.searching, computed.proxies, strict=True):
            if not is_proxy and (self.config.first_step == "full" or example in self._scores):
                continue
            search, start = self._searches[example], self.packed.offsets[example]
            stretch = slice(start, start + self.packed.lengths[example])
            scores = search.score(query[0][:, proxies.to(query.device)], keys, stretch, attention.scaling)
            if is_proxy:
                before = self._scores.get(example)
                scores = self._scores[example] = scores if before is None else scores + before.to(scores.device)
            self.anchors[example] = search.choose(scores)

    def _proxy_layers(self, attention: Any) -> tuple[int, ...]:
        """The layers whose attention the search looks at."""
        return self.config.proxy_layers or (attention.config.num_hidden_layers // 2,)

    def _random_anchors(self, search: AnchorSearch) -> torch.Tensor:
        """(frames, anchors); the same for an example wherever it stands in a batch."""
        generator = torch.Generator().manual_seed(self.config.anchor_seed)
        return search.choose(upload(torch.rand(len(search.visual), generator=generator), search.visual.device))


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
