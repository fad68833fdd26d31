"""Scores of the benchmarks that others published, in percent, and where each was read.

A model that is missing from a benchmark has no score there that was found in a source.
"""

from typing import NamedTuple


class Score(NamedTuple):
    """A published score.

    Args:
        value: in percent.
        source: of `SOURCES`.
    """

    value: float
    source: str


MODELS = ("VidLaDA-8B", "LLaDA-V", "Dream-VL", "LLaVA-Video-7B", "Qwen2.5-VL-7B")

SOURCES = {
    "a": "arXiv 2601.17868 (VidLaDA), as listed at wizwand.com/paper/697846fca2b28e761d87c893",
    "b": "arXiv 2512.22615 (Dream-VL), table 4; it does not name the part of MLVU",
    "c": "arXiv 2505.16933 (LLaDA-V), as listed at wizwand.com/paper/68fa79101e209131cea7bebe",
    "d": "arXiv 2410.02713 (LLaVA-Video), as repeated by openreview.net/forum?id=MZi9SYPVz5, whose baseline it is",
    "e": "arXiv 2601.17868 (VidLaDA), a comparison with it, as repeated in a review of that paper",
    "f": "arXiv 2502.13923 (Qwen2.5-VL), as listed in a review of LongVideoBench",
}

PUBLISHED: dict[str, dict[str, Score]] = {
    "videomme": {
        "LLaDA-V": Score(56.1, "b"),
        "Dream-VL": Score(61.5, "b"),
        "LLaVA-Video-7B": Score(63.3, "d"),
        "Qwen2.5-VL-7B": Score(65.1, "b"),
    },
    "mlvu_dev": {"LLaDA-V": Score(59.4, "b"), "Dream-VL": Score(61.1, "b")},
    "mlvu_test": {"VidLaDA-8B": Score(53.4, "a"), "LLaVA-Video-7B": Score(50.4, "e")},
    "longvideobench_val_v": {
        "VidLaDA-8B": Score(61.4, "a"),
        "LLaVA-Video-7B": Score(58.2, "d"),
        "Qwen2.5-VL-7B": Score(56.0, "f"),
    },
    "egoschema": {"LLaVA-Video-7B": Score(57.3, "d")},
    "mvbench": {
        "VidLaDA-8B": Score(59.4, "a"),
        "LLaDA-V": Score(53.1, "c"),
        "LLaVA-Video-7B": Score(58.6, "d"),
        "Qwen2.5-VL-7B": Score(69.6, "e"),
    },
    "lvbench": {"VidLaDA-8B": Score(44.7, "a")},
    "video_mmmu": {"VidLaDA-8B": Score(46.6, "a")},
}


def published_cells(task: str) -> list[str]:
    """The published scores of a benchmark, in the order of `MODELS`, each with the letter of its source."""
    found = PUBLISHED.get(task, {})
    return [f"{found[model].value:.1f} ({found[model].source})" if model in found else "-" for model in MODELS]


__all__ = ["MODELS", "PUBLISHED", "SOURCES", "Score", "published_cells"]
