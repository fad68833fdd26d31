"""MARS-Cache: visual and text rows are refreshed at their own pace, deep layers more often than shallow ones.

The first open implementation of arXiv 2601.17868, section 4 and appendices E and F. What the paper leaves open is
decided here, and said in `MARSCacheConfig`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from .cache_vidlada import DenoisingStep, SequenceLayout
from .chunk_attention_vidlada import (
    FrameBatch,
    VideoTokens,
    attend_by_frames,
    batch_frames,
    choose_anchors,
    evenly_spaced,
    proxy_attention_scores,
)
from .kv_cache_vidlada import ComputedTokens, SelectiveKVCache, check_interval


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
        """Groups of layers."""
        return len(self.visual_intervals)


@dataclass(frozen=True)
class RefreshPlan:
    """What one example refreshes in a step: for each kind of rows, from which group of layers on.

    Args:
        visual, text: the shallowest group refreshed; the number of groups where none is.
        full: whether visual rows attend to everything.
    """

    visual: int
    text: int
    full: bool = False


class MARSCache(SelectiveKVCache):
    """Named "mars". Keeps keys and values of all rows, and the hidden states with which they entered each group.

    The rows of the block are computed in every step, through all layers. What else is computed is decided for each
    example, kind of rows and group:

    - Rows of a kind that is refreshed from group g on enter that group with the hidden states stored when they last
      passed there (the embeddings, for the first group), run through it and all deeper groups, and leave their hidden
      states at each boundary that they pass. Groups before g are not run for them.
    - "Visual" are the rows of frames; "text" are all others outside the block: the prompt's text and images, finished
      blocks, later masks, a suffix. In a block's first step the block before is computed along with it, so that tokens
      committed last are never seen as masks.
    - Visual rows attend as `chunk_attention_vidlada` says, all others to everything. An example with at most
      `neighborhood` + 1 frames is within every frame's neighborhood, and attends to everything.

    An example without frames has text only. Frames are neighbours by their numbers in the layout, also from one video
    of a prompt to the next.

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
        """More groups than layers, proxy layers that are not there, more anchors than a frame has rows: refused."""
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
            rows = frames[frames >= 0].unique(return_counts=True)[1]
            if self._is_chunked(len(rows)) and config.anchors > (fewest := int(rows.amin())):
                raise ValueError(
                    f"`anchors` ({config.anchors}) must not exceed the {fewest} rows of a frame (example {example} of "
                    f"the batch): take at most {fewest}."
                )

    def _is_chunked(self, frames: int) -> bool:
        """Whether visual rows of so many frames attend by frames: some frame has others out of its neighborhood."""
        width = self.config.neighborhood
        return width is not None and frames > width + 1

    def begin(self, layout: SequenceLayout) -> None:
        """See `DenoisingCache.begin`."""
        super().begin(layout)
        numbers, frames = self.numbers, layout.frame_index.cpu()
        self.videos = [
            VideoTokens(
                frames=tuple(
                    numbers.numbers[i][visual & (frames[i] == frame)] for frame in frames[i][visual].unique().tolist()
                ),
                others=numbers.numbers[i][real & ~visual],
            )
            for i, (real, visual) in enumerate(zip(numbers.real, numbers.visual, strict=True))
        ]
        self.is_chunked = [self._is_chunked(len(video.frames)) for video in self.videos]
        self.boundaries: dict[int, torch.Tensor] = {}  # group -> (rows, hidden), what entered it
        self.refreshed = []
        self.anchors: dict[int, list[torch.Tensor]] = {}  # example -> of each frame, (anchors,)
        if self.config.anchor_choice == "random" or self.config.anchors == 0:
            chunked = [i for i, is_chunked in enumerate(self.is_chunked) if is_chunked]
            self.anchors = {i: self._random_anchors(self.videos[i]) for i in chunked}
        self._searching: list[int] = []
        self._scores: dict[int, torch.Tensor] = {}
        self._blocks: list[slice | None] = [None] * len(self.videos)  # each example's latest
        self._framed: tuple[int, ...] = ()
        self._frames: dict[Any, tuple[list[FrameBatch], torch.Tensor]] = {}  # (examples, device) ->

    def end(self) -> None:
        """See `DenoisingCache.end`."""
        super().end()
        self.boundaries, self._frames, self._scores = {}, {}, {}

    # --- what is due -------------------------------------------------------------------------------------------------

    def due(self, example: int, step: DenoisingStep) -> RefreshPlan:
        """What an example refreshes after its first step. Here by the clock, which counts the example's own steps."""
        done, config = self.steps_done[example], self.config
        return RefreshPlan(first_due(config.visual_intervals, done), first_due(config.text_intervals, done))

    def schedule(self, steps: Sequence[DenoisingStep]) -> dict[str, torch.Tensor] | None:
        """See `DenoisingCache.schedule`."""
        groups = torch.arange(self.config.groups)
        pyramids = {"visual": self.config.visual_intervals, "text": self.config.text_intervals}
        return {
            kind: torch.stack([groups >= first_due(pyramid, step.index) for step in steps])
            for kind, pyramid in pyramids.items()
        }

    # --- one step ----------------------------------------------------------------------------------------------------

    def denoise(self, text_model: Any, inputs_embeds: torch.Tensor, step: DenoisingStep) -> torch.Tensor:
        """Runs the block's rows and whatever is due, group by group; in one go where nothing is."""
        active, layers, groups = self.numbers.active(step), len(text_model.layers), self.config.groups
        first = RefreshPlan(0, 0, full=self.config.first_step == "full")
        due = [
            (self.due(example, step) if self.steps_done[example] else first) if awake else None
            for example, awake in enumerate(active)
        ]
        self.refreshed.append(due)
        self._proxy_layers = self.config.proxy_layers or (layers // 2,)
        unseen = [i for i, chunked in enumerate(self.is_chunked) if chunked and i not in self.anchors]
        self._searching = [i for i in unseen if active[i]]
        always, is_new_block = self.always_computed(step)
        quiet = all(d is None or min(d.visual, d.text) == groups for d in due)
        if quiet and not is_new_block:
            rows = self._rows_of_group(step, always, due, 0)
            return self.finish_step(self.compute(text_model, self.embeddings(inputs_embeds, rows), rows), rows, step)
        hidden_states: Any = None
        for group in range(groups):
            rows = self._rows_of_group(step, always, due, group)
            hidden_states = None  # what enters is a copy, and each layer's input is let go of: both keep the peak down
            hidden_states = self.boundaries[group][rows.numbers] if group else self.embeddings(inputs_embeds, rows)
            for layer in range(group * layers // groups, (group + 1) * layers // groups):
                hidden_states = self.compute(text_model, hidden_states, rows, range(layer, layer + 1))
            self.on_group_end(group, rows, hidden_states, step, due)
        return self.finish_step(hidden_states, rows, step)

    def always_computed(self, step: DenoisingStep) -> tuple[torch.Tensor, bool]:
        """(batch, columns), bool: the block, and in its first step the one before; and whether it was the first."""
        active = self.numbers.active(step)
        always, is_new_block = self.numbers.marked(step.span, active), False
        for example in range(len(active)):
            before = self._blocks[example]
            if active[example] and before != step.span:
                is_new_block = True
                self._blocks[example] = step.span
                if before is not None:
                    always[example, before] = True
        return always, is_new_block

    def _rows_of_group(
        self, step: DenoisingStep, always: torch.Tensor, due: Sequence[RefreshPlan | None], group: int
    ) -> ComputedTokens:
        """The rows that a group of layers computes; sets which examples' visual rows attend by frames."""
        numbers = self.numbers
        visual = torch.tensor([d is not None and d.visual <= group for d in due])
        text = torch.tensor([d is not None and d.text <= group for d in due])
        framed = torch.tensor([d is not None and not d.full for d in due]) & visual & torch.tensor(self.is_chunked)
        wanted = torch.where(numbers.visual, visual[:, None], text[:, None]) & numbers.real
        marked = (always | wanted) & ~(numbers.visual & framed[:, None])
        self._framed = tuple(framed.nonzero()[:, 0].tolist())
        key = (marked.numpy().tobytes(), self._framed, step.span.start, step.span.stop, step.active)
        if key not in self._kept_rows:
            first = torch.cat([self.videos[i].visual for i in self._framed]) if self._framed else None
            self._kept_rows[key] = numbers.rows(marked, step, first)
        return self._kept_rows[key]

    def on_group_end(
        self,
        group: int,
        rows: ComputedTokens,
        hidden_states: torch.Tensor,
        step: DenoisingStep,
        due: Sequence[RefreshPlan | None],
    ) -> None:
        """Called with what left a group of layers, (rows, hidden): stores it as what enters the next."""
        if group + 1 == self.config.groups:
            return
        if group + 1 not in self.boundaries:
            size = (len(self.numbers.places), hidden_states.shape[-1])
            self.boundaries[group + 1] = hidden_states.new_zeros(size)
        self.boundaries[group + 1].index_copy_(0, rows.numbers.to(hidden_states.device), hidden_states)

    # --- attention ---------------------------------------------------------------------------------------------------

    def attend(
        self,
        attention: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Stores keys and values; visual rows that are refreshed attend by frames, all others to everything."""
        keys, values = self.store(attention.layer_idx, key, value)
        self._search_anchors(attention, query, keys)
        framed = self.computed.framed
        others = self.attend_to_all(attention, query[:, :, framed:], keys, values, **kwargs)
        if not framed:
            return others
        batches, places = self._frames_of(self._framed, query.device)
        visual = attend_by_frames(attention, query[:, :, :framed], places, keys, values, batches, **kwargs)
        return torch.cat([visual, others], dim=1)

    def _frames_of(self, examples: tuple[int, ...], device: torch.device) -> tuple[list[FrameBatch], torch.Tensor]:
        """The frames of these examples in batches, and the place of each visual row among those computed."""
        if (examples, device) not in self._frames:
            videos = [self.videos[i] for i in examples]
            numbers = torch.cat([video.visual for video in videos])
            batches = batch_frames(videos, [self.anchors[i] for i in examples], self.config.neighborhood, device)
            self._frames[examples, device] = batches, places_of(numbers, len(self.numbers.places)).to(device)
        return self._frames[examples, device]

    def _search_anchors(self, attention: Any, query: torch.Tensor, keys: torch.Tensor) -> None:
        """Adaptive anchor search, in an example's first step: looks at this layer if it is wanted."""
        layer, wanted = attention.layer_idx, self._proxy_layers
        if not self._searching or layer > max(wanted):
            return
        places = places_of(self.computed.numbers.cpu(), len(self.numbers.places))
        for example in self._searching:
            if layer not in wanted and (self.config.first_step == "full" or example in self._scores):
                continue
            scores = self._proxy_map(example, attention, query, keys, places)
            if layer in wanted:
                scores = self._scores[example] = scores + self._scores.get(example, 0)
            self.anchors[example] = choose_anchors(self.videos[example], scores, self.config.anchors)
            self._frames.clear()

    def _proxy_map(
        self, example: int, attention: Any, query: torch.Tensor, keys: torch.Tensor, places: torch.Tensor
    ) -> torch.Tensor:
        """(visual rows,), on the CPU: the mass that each receives in this layer from proxies elsewhere in the video."""
        video, device = self.videos[example], query.device
        start = self.numbers.starts[example]
        numbers, frames = video.visual, video.frame_of_rows()
        proxies = evenly_spaced(len(numbers), self.config.proxy_queries)
        return proxy_attention_scores(
            query=query[0][:, places[numbers[proxies]].to(device)],
            query_frames=frames[proxies].to(device),
            keys=keys[start : start + self.numbers.lengths[example]],
            visual=(numbers - start).to(device),
            key_frames=frames.to(device),
            neighborhood=self.config.neighborhood,
            scaling=attention.scaling,
        ).cpu()

    def _random_anchors(self, video: VideoTokens) -> list[torch.Tensor]:
        """(anchors,) of each frame; the same for an example wherever it stands in a batch."""
        generator = torch.Generator().manual_seed(self.config.anchor_seed)
        return choose_anchors(video, torch.rand(len(video.visual), generator=generator), self.config.anchors)


def places_of(numbers: torch.Tensor, total: int) -> torch.Tensor:
    """(total,), int64: where each number stands in `numbers`; -1 for those that do not."""
    places = torch.full((total,), -1)
    places[numbers] = torch.arange(len(numbers))
    return places


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


def check_whole(name: str, value: Any, least: int, unit: str = "") -> None:
    """A ValueError that names what is no whole number of at least so much."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"`{name}` must be a whole number of at least {least}{unit}, got {value!r}.")


def check_choice(name: str, value: Any, known: Sequence[str]) -> None:
    """A ValueError that lists what is known."""
    if value not in known:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, known))}, got {value!r}.")


__all__ = ["RefreshPlan", "MARSCache", "MARSCacheConfig"]
