"""All that `generate` can do, and a MARS-Cache that does it all in few steps."""

from collections.abc import Sequence
from typing import Any

from vidlada_hf.modeling.cache_strategies_vidlada import resolve_cache_strategy, serves
from vidlada_hf.modeling.unmasking_vidlada import resolve_unmasking

from ..tiny_models import MASK


class Numbers:
    """A tokenizer: an id is its number between blanks."""

    def decode(self, ids, **_):
        return "".join(f" {i} " for i in ids)


WAYS = {
    "plain": {},
    "guidance": {"cfg_scale": 0.7},
    "two a step": {"max_denoising_steps": 6},
    "infilling and suffix": {
        "canvas": [MASK, 5, MASK, MASK, 9, MASK, MASK, MASK, MASK, MASK, 11, MASK],
        "suffix": [7, 8],
    },
    "stops": {"eos_token_id": list(range(3, 12))},
    "stop strings": {"stop_strings": [" 5 ", " 9 "], "tokenizer": Numbers()},
    "threshold": {"unmasking": "threshold", "unmask_threshold": 0.3, "suppress_tokens": [0, MASK]},
    "factor": {"unmasking": "factor", "unmask_factor": 3.0, "suppress_tokens": [0, MASK]},
    "entropy": {"unmasking": "entropy", "unmask_entropy_bound": 4.0, "suppress_tokens": [0, MASK]},
    "local": {"unmasking": "local", "unmask_relaxed_threshold": 0.1, "unmask_threshold": 0.3},
    "klass": {
        "unmasking": "klass",
        "unmask_stable_threshold": 0.1,
        "unmask_kl_bound": 1.0,
        "suppress_tokens": [0, MASK],
    },
    "prophet": {"unmasking": "prophet", "unmask_gap": 0.3, "suppress_tokens": [0, MASK]},
    "wino": {"unmasking": "wino", "unmask_draft_threshold": 0.3, "suppress_tokens": [0, MASK]},
    "noise": {"temperature": 1.0, "remasking": "random", "seed": 3},
}


def in_every_way(strategies: Sequence[tuple[str, Any]]) -> list[tuple[str, Any, str]]:
    """Strategies by name, with their settings, each with the ways that it serves."""
    return [
        (name, config, way)
        for name, config in strategies
        for way, settings in WAYS.items()
        if serves(resolve_cache_strategy(name), resolve_unmasking(settings.get("unmasking", "quota")))
    ]


# Visual tokens are refreshed within the twelve steps too, by frames and with anchors that were searched for.
OFTEN = {"visual_intervals": [4, 2], "text_intervals": [2, 2], "anchors": 2}
