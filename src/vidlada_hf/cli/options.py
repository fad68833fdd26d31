"""Options that several commands have, and what becomes of them."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from ..setting_names import UNMASKING_NUMBERS, check_dtype, parse_cache, parse_unmasking
from .common import refuse, user_errors


def _checked(check: Callable[[str], Any]) -> Callable[[Any], Any]:
    """A callback that ends the command where `check` refuses what was typed, before anything heavy is imported."""

    def callback(typed: Any) -> Any:
        with user_errors():
            for text in [typed] if isinstance(typed, str) else typed or ():
                check(text)
        return typed

    return callback


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
        callback=_checked(parse_cache),
    ),
]
_NAMED_STRATEGY = "A cache strategy, or with settings such as 'mars:{\"anchors\": 8}'"
OneCacheStrategy = Annotated[str, typer.Option(help=f"{_NAMED_STRATEGY}.", callback=_checked(parse_cache))]
CacheStrategies = Annotated[
    list[str] | None,
    typer.Option(
        help=f"{_NAMED_STRATEGY}; may be repeated.", show_default="all of them", callback=_checked(parse_cache)
    ),
]
Unmasking = Annotated[
    str | None,
    typer.Option(
        help="Which tokens a step commits: quota, threshold, local, factor, entropy, klass, prophet or wino; with its "
        "number such as threshold:0.8.",
        show_default="the checkpoint's",
        callback=_checked(parse_unmasking),
    ),
]
UnmaskingRules = Annotated[
    list[str] | None,
    typer.Option(
        help="A rule, or with its number such as threshold:0.8; may be repeated.",
        show_default="all",
        callback=_checked(parse_unmasking),
    ),
]
Device = Annotated[str | None, typer.Option(help="Such as cuda:1, cpu or mps.", show_default="a GPU if there is one")]
Dtype = Annotated[
    str,
    typer.Option(
        help="Of the weights: float32, bfloat16 or float16.", show_default="as stored", callback=_checked(check_dtype)
    ),
]


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
        name, config = parse_cache(cache_strategy)
        settings |= {"cache_strategy": name, "cache_config": config or None}
    if unmasking is not None:
        settings["unmasking"], number = parse_unmasking(unmasking)
        field = UNMASKING_NUMBERS[settings["unmasking"]]
        if field is not None and number is not None:
            settings[field] = number
    return settings
