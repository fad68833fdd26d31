"""MARS-Cache without a clock: what is refreshed is decided by how far a few probe rows have drifted.

Not from the paper. The machinery is `MARSCache`'s; only `due` differs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from .cache_vidlada import SequenceLayout, Step
from .chunk_attention_vidlada import spread
from .mars_cache_vidlada import ChunkConfig, Due, MARSCache, check_whole, places_of
from .row_cache_vidlada import Rows


@dataclass(frozen=True)
class MARSAdaptiveConfig(ChunkConfig):
    """The settings of `MARSAdaptiveCache`: those of `ChunkConfig`, and its bound.

    Args:
        drift_bound: relative change of the probe rows' hidden states, since the refresh, above which a group of layers
            is refreshed. 0.1 is a first guess of ours, not yet measured on a trained model. The smaller, the closer to
            exact and the slower.
        probe_rows: rows of each kind that are computed along in every step.
        groups: groups of layers, equally large.

    Raises:
        ValueError: an impossible value.
    """

    SETS_GROUPS: ClassVar[str] = "`groups`"

    drift_bound: float = 0.1
    probe_rows: int = 8
    groups: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        bound = self.drift_bound
        if not isinstance(bound, int | float) or isinstance(bound, bool) or not bound >= 0:
            raise ValueError(f"`drift_bound` must be a number of at least 0, got {bound!r}.")
        check_whole("probe_rows", self.probe_rows, 1)
        check_whole("groups", self.groups, 1)


class MARSAdaptiveCache(MARSCache):
    """Named "mars-adaptive". Evenly spaced probe rows of each kind are computed in every step, along with the block.

    In the step after a refresh, what leaves each group for the probe rows is kept as the reference. In later steps the
    drift of a group is the distance from it, relative to its length, averaged over the probes of an example and kind.
    Where a group's drift exceeds the bound, the next step refreshes this kind of rows from that group on (and the
    deeper ones, which drift more). So a refresh comes one step after the drift that asks for it, and at most every
    third step refreshes the same rows. Text probes whose token changed, in the block or before, do not count.

    Attributes:
        drifts: for each step of the latest `generate`, (groups, batch, 2): the drift of visual and text probes, NaN
            where it was not measured. Kept after `end`.
    """

    config_class = MARSAdaptiveConfig
    needs_boundaries = True

    def __init__(self, config: MARSAdaptiveConfig | None = None) -> None:
        super().__init__(config)
        self.drifts: list[torch.Tensor] = []

    def begin(self, layout: SequenceLayout) -> None:
        """See `DenoisingCache.begin`."""
        super().begin(layout)
        self.drifts = []
        self._next = [Due(self.config.groups, self.config.groups)] * len(self.videos)
        probes = [
            (rows[spread(len(rows), self.config.probe_rows)], example, kind)
            for example, video in enumerate(self.videos)
            for kind, rows in enumerate((video.visual, video.others))
        ]
        self._numbers = torch.cat([rows for rows, _, _ in probes])
        self._owners = [(example, kind) for rows, example, kind in probes for _ in rows]
        places = self.numbers.places.cpu()[self._numbers]
        self._columns = places % self.numbers.real.shape[1]
        self._marked = torch.zeros_like(self.numbers.real)
        self._marked.view(-1)[places] = True
        # group -> (probes, hidden), and whether each is set.
        self._references: dict[int, torch.Tensor] = {}
        self._is_set = torch.zeros(self.config.groups, len(self._numbers), dtype=torch.bool)
        self._measured: list[torch.Tensor] = []
        self._places: dict[int, torch.Tensor] = {}

    def end(self) -> None:
        """See `DenoisingCache.end`."""
        super().end()
        self._references, self._places = {}, {}

    def due(self, example: int, step: Step) -> Due:
        """What the latest step's drift asks for."""
        return self._next[example]

    def schedule(self, steps: Sequence[Step]) -> None:
        """Not known before it runs; afterwards see `refreshed` and `drifts`."""
        return None

    def always_computed(self, step: Step) -> tuple[torch.Tensor, bool]:
        """The block and the probes."""
        always, is_new_block = super().always_computed(step)
        active = torch.tensor(self.numbers.active(step))
        return always | (self._marked & active[:, None]), is_new_block

    def denoise(self, text_model: Any, inputs_embeds: torch.Tensor, step: Step) -> torch.Tensor:
        """A step, after which the drift says what the next one refreshes."""
        self._measured = []
        hidden_states = super().denoise(text_model, inputs_embeds, step)
        groups = self.config.groups
        drifts = self._average(torch.stack(self._measured).cpu())
        self.drifts.append(drifts)
        exceeds = (drifts > self.config.drift_bound).tolist()
        for example, awake in enumerate(self.numbers.active(step)):
            if awake:
                first = [next((g for g in range(groups) if exceeds[g][example][kind]), groups) for kind in (0, 1)]
                self._next[example] = Due(first[0], first[1])
        return hidden_states

    def leave_group(
        self, group: int, rows: Rows, hidden_states: torch.Tensor, step: Step, due: Sequence[Due | None]
    ) -> None:
        """Also measures the probes: (probes,), NaN where there is nothing to compare with or nothing was computed."""
        super().leave_group(group, rows, hidden_states, step, due)
        refreshed, present = [], []
        for example, kind in self._owners:
            now = due[example]
            present.append(now is not None)
            refreshed.append(now is not None and (now.visual, now.text)[kind] <= group)
        is_refreshed, is_present = torch.tensor(refreshed), torch.tensor(present)
        known = self._is_set[group] & is_present & ~is_refreshed
        fresh = is_present & ~is_refreshed & ~known
        self._is_set[group] = (self._is_set[group] | fresh) & ~is_refreshed

        device = hidden_states.device
        if id(rows) not in self._places:  # `rows` are kept, and looked up again: a GPU need not be waited for
            places = places_of(rows.numbers.cpu(), len(self.numbers.places))[self._numbers].clamp(min=0)
            self._places[id(rows)] = places.to(device)
        probes = hidden_states[self._places[id(rows)]]
        reference = self._references.get(group, probes)
        drift = (probes - reference).norm(dim=-1).float() / reference.norm(dim=-1).float()
        self._references[group] = torch.where(fresh.to(device)[:, None], probes, reference)
        counted = known & ~self._is_changed(step)
        self._measured.append(drift.masked_fill(~counted.to(device), torch.nan))

    def _is_changed(self, step: Step) -> torch.Tensor:
        """(probes,), bool: whether the row's token is or was being denoised."""
        assert self.layout is not None
        return (self._columns >= self.layout.canvas.start) & (self._columns < step.rows.stop)

    def _average(self, drift: torch.Tensor) -> torch.Tensor:
        """(groups, probes) -> (groups, batch, 2): the mean over what was measured."""
        cells = torch.tensor([2 * example + kind for example, kind in self._owners])
        means = [drift[:, cells == cell].nanmean(-1) for cell in range(2 * len(self.videos))]
        return torch.stack(means, -1).unflatten(-1, (-1, 2))


__all__ = ["MARSAdaptiveCache", "MARSAdaptiveConfig"]
