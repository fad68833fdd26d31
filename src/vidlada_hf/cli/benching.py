"""A benchmark from the names of things: what `vidlada bench` does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..evaluation.bench import run_bench, table
from ..evaluation.decoding import DecodingRunner, combine
from ..evaluation.questions import load_questions
from ..evaluation.report import draw_bench
from ..hub.locate import find_checkpoint
from ..modeling.cache_strategies_vidlada import CACHE_STRATEGIES
from ..modeling.modeling_vidlada import VidLaDAForConditionalGeneration
from ..modeling.unmasking_vidlada import UNMASKING_STRATEGIES
from ..processing.processing_vidlada import VidLaDAProcessor


def bench(
    model: str | None,
    questions: Path | None,
    videos: Path | None,
    count: int | None,
    strategies: Sequence[str] | None,
    rules: Sequence[str] | None,
    frames: int,
    settings: dict[str, Any],
    ending: str,
    rounds: int,
    timed: int,
    batch_size: int,
    dtype: str,
    output: Path,
) -> str:
    """Loads everything, measures, and draws a picture beside the JSON file.

    Args:
        model: folder or id; None: the embedded checkpoint.
        questions, videos, count: see `load_questions`.
        strategies, rules: as they are typed, see `combine`; None: all strategies, all rules.
        frames, ending, settings: see `DecodingRunner`.
        rounds, timed, batch_size, output: see `run_bench`.
        dtype: of the weights, "auto": as stored.

    Returns:
        The table, and where the files are.

    Raises:
        FileNotFoundError, ValueError: whatever is wrong with the arguments, before the weights are loaded where that
            can be seen.
    """
    if output.suffix == ".png":
        raise ValueError(f"The results are JSON, and {output} is where their plot goes: name another file.")
    import matplotlib.figure  # noqa: F401  # where it is missing, this is told before anything is measured

    name = find_checkpoint(model)
    contenders = combine(strategies or list(CACHE_STRATEGIES), rules or list(UNMASKING_STRATEGIES))
    items = load_questions(questions, count, videos)
    processor = VidLaDAProcessor.from_pretrained(name)
    network = VidLaDAForConditionalGeneration.from_pretrained(name, dtype=dtype)
    network = network.to("cuda" if torch.cuda.is_available() else "cpu").eval()  # type: ignore[arg-type]
    denoiser = DecodingRunner(network, processor, frames, ending, settings)
    shown = "vidlada-tiny" if model is None else model
    data = run_bench(denoiser, items, contenders, output, shown, rounds, timed, batch_size)
    plot = draw_bench(data, output.with_suffix(".png"))
    return f"{table(data)}\n\nResults: {output}\nPlot:    {plot}"


__all__ = ["bench"]
