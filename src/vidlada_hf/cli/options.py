"""Options that several commands have, and what becomes of them."""

from typing import Annotated, Any

import typer

from .common import refuse

Model = Annotated[
    str | None, typer.Option(help="Folder of a checkpoint or its id on the Hub.", show_default="the embedded one")
]
ModelArgument = Annotated[
    str | None, typer.Argument(help="Folder of a checkpoint or its id on the Hub.", show_default="the embedded one")
]
Frames = Annotated[int | None, typer.Option(help="Look at so many frames, spread evenly over the video.")]
Fps = Annotated[float | None, typer.Option(help="Look at so many frames a second.")]
MaxNewTokens = Annotated[int | None, typer.Option(help="Length of the canvas, in tokens.")]
BlockLength = Annotated[int | None, typer.Option(help="Denoise the canvas in blocks of so many tokens.")]
MaxDenoisingSteps = Annotated[int | None, typer.Option(help="Steps over the whole canvas.")]
Temperature = Annotated[float | None, typer.Option(help="0 takes the most probable token.")]
CacheStrategy = Annotated[
    str | None,
    typer.Option(
        help="What a step recomputes: none (all, exact), mars, prefix, dual or interval; with settings such as "
        "'mars:{\"anchors\": 8}'.",
        show_default="the checkpoint's",
    ),
]
_NAMED_STRATEGY = "A cache strategy, or with settings such as 'mars:{\"anchors\": 8}'"
OneCacheStrategy = Annotated[str, typer.Option(help=f"{_NAMED_STRATEGY}.")]
CacheStrategies = Annotated[
    list[str] | None, typer.Option(help=f"{_NAMED_STRATEGY}; may be repeated.", show_default="all of them")
]
Unmasking = Annotated[
    str | None,
    typer.Option(
        help="Which tokens a step commits: quota, threshold, local, factor, entropy, klass or prophet; with its number "
        "such as threshold:0.8.",
        show_default="the checkpoint's",
    ),
]
Device = Annotated[str | None, typer.Option(help="Such as cuda:1, cpu or mps.", show_default="a GPU if there is one")]
Dtype = Annotated[str, typer.Option(help="Of the weights: float32, bfloat16 or float16.", show_default="as stored")]


def check_frames(frames: int | None, fps: float | None) -> None:
    """Ends the command where frames are chosen in two ways."""
    if frames is not None and fps is not None:
        refuse("--frames and --fps are two ways to choose frames: give one of them.", 2)


def given(**options: Any) -> dict[str, Any]:
    """Those that a user gave."""
    return {name: value for name, value in options.items() if value is not None}


def decoding_settings(cache_strategy: str | None, unmasking: str | None) -> dict[str, Any]:
    """Fields of `VidLaDAGenerationConfig` for a strategy and a rule as they are typed."""
    settings: dict[str, Any] = {}
    if cache_strategy is not None:
        from ..evaluation.decoding import parse_cache

        name, config = parse_cache(cache_strategy)
        settings |= {"cache_strategy": name, "cache_config": config or None}
    if unmasking is not None:
        from ..evaluation.decoding import parse_unmasking
        from ..modeling.unmasking_vidlada import UNMASKING_STRATEGIES, resolve_unmasking

        name, number = parse_unmasking(unmasking)
        resolve_unmasking(name)  # raises for an unknown one
        settings["unmasking"] = name
        fields = UNMASKING_STRATEGIES[name][1]
        if number is not None and not fields:
            raise ValueError(f"The unmasking rule {name!r} takes no number, got {number:g}.")
        if number is not None:
            settings[fields[0]] = number
    return settings
