"""What chunk attention saves in a refresh of all tokens, the layers alone, against the number of frames."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from gpu_session import Session

from vidlada_hf import DenoisingStep, MARSCache, MARSCacheConfig, VidLaDAForConditionalGeneration
from vidlada_hf.evaluation.cost_model import Sizes
from vidlada_hf.evaluation.measure import clock
from vidlada_hf.evaluation.random_model import TEXT_TOKENS, build_random_model

CALLS = 5  # of the attention alone, in one measurement


class RecordingCache(MARSCache):
    """`MARSCache` that remembers the latest call of its `attend`."""

    def attend(self, *args: Any, **kwargs: Any) -> torch.Tensor:  # type: ignore[override]
        self.call = args, kwargs
        return super().attend(*args, **kwargs)


class Refresh:
    """MARS-Cache in the middle of an answer, where each step refreshes all tokens in all layers.

    Args:
        counts: tokens of the one example.
        block: tokens of the block.
        neighborhood: frames on either side that a frame attends to; None: all, no chunk attention.
    """

    @torch.no_grad()
    def __init__(
        self, model: VidLaDAForConditionalGeneration, counts: Sizes, block: int, neighborhood: int | None
    ) -> None:
        self.text_model: Any = model.model.language_model
        layout = counts.layout()
        layout = replace(
            layout,
            position_ids=layout.position_ids.to(model.device),
            frame_index=layout.frame_index.to(model.device),
        )
        config = MARSCacheConfig(neighborhood=neighborhood, visual_intervals=(1,), text_intervals=(1,))
        self.cache = RecordingCache(config)
        self.cache.check(self.text_model.config, layout)
        self.cache.begin(layout)
        self.span, self.steps = slice(layout.canvas.start, layout.canvas.start + block), 0
        hidden_size = self.text_model.config.hidden_size
        self.embeddings = torch.randn(1, counts.total, hidden_size, device=model.device, dtype=model.dtype)
        self.step()  # attends to everything, and finds the anchors

    @torch.no_grad()
    def step(self) -> None:
        """All tokens through all layers."""
        self.cache.denoise(self.text_model, self.embeddings, DenoisingStep(self.steps, 0, self.steps, self.span))
        self.steps += 1

    @torch.no_grad()
    def attend(self) -> None:
        """The attention of the last layer, its keys and values stored along, as the latest step called it."""
        args, kwargs = self.cache.call
        for _ in range(CALLS):
            MARSCache.attend(self.cache, *args, **kwargs)

    def time(self) -> dict[str, float]:
        """Seconds of a refresh, and of the attention of one of its layers."""
        device = self.embeddings.device
        return {"refresh": clock(self.step, device), "attention": clock(self.attend, device) / CALLS}


def measure_chunk_attention(session: Session) -> None:
    """Chunk attention in turn with full attention, for each number of frames."""
    size, standard = session.size, session.model.config.text_config.max_position_embeddings
    per_frame, others = session.model.model.tokens_per_frame, TEXT_TOKENS + session.size.canvas
    raised = max(standard, max(size.chunk_frames) * per_frame + others)
    text = size.text | {"num_hidden_layers": size.chunk_layers, "max_position_embeddings": raised}
    model = build_random_model(text, session.device, session.dtype, size.grid)
    session.record.data["chunk attention"] = {
        "layers": size.chunk_layers,
        "max_position_embeddings": raised,
        "max_position_embeddings of the 8B": f"{standard}, at most {(standard - others) // per_frame} frames",
    }
    for frames in size.chunk_frames:
        counts = Sizes(TEXT_TOKENS, (per_frame,) * frames, size.canvas)
        kinds = {"full": None, "chunked": 1}
        runs = {f"{frames} frames, {kind}": timer(model, counts, size.block, near) for kind, near in kinds.items()}
        session.time_in_turns("chunk attention", runs)


def timer(
    model: VidLaDAForConditionalGeneration, counts: Sizes, block: int, neighborhood: int | None
) -> Callable[[], dict[str, float]]:
    """`Refresh.time` of a refresh that is set up when it is first called: not at all where nothing is left to do."""

    @cache
    def refresh() -> Refresh:
        return Refresh(model, counts, block, neighborhood)

    return lambda: refresh().time()


__all__ = ["Refresh", "measure_chunk_attention"]
