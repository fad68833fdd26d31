"""`vidlada schedule`."""

from pathlib import Path
from typing import Annotated

import typer

from ..setting_names import parse_cache
from .common import app, require_extra, user_errors
from .options import OneCacheStrategy


@app.command()
def schedule(
    cache_strategy: OneCacheStrategy = "mars",
    max_new_tokens: Annotated[int, typer.Option(help="Length of the canvas, in tokens.")] = 128,
    block_length: Annotated[int, typer.Option(help="Denoise the canvas in blocks of so many tokens.")] = 32,
    max_denoising_steps: Annotated[
        int | None, typer.Option(help="Steps over the whole canvas.", show_default="one a token")
    ] = None,
    frames: Annotated[int, typer.Option(help="Of a video that its operations are counted for.", min=0)] = 32,
    tokens_per_frame: Annotated[int, typer.Option(help="Visual tokens of each frame.", min=1)] = 210,
    plot: Annotated[Path | None, typer.Option(help="Draw it too, into this file.")] = None,
) -> None:
    """Show which tokens a cache strategy refreshes in which layers and steps."""
    with user_errors("demo"):
        if plot is not None:
            require_extra("demo")
        from ..evaluation.schedule import draw_refreshes, format_refreshes, plan_refreshes, plan_saving
        from ..modeling.cache_strategies_vidlada import resolve_cache_strategy
        from ..modeling.generation_config_vidlada import VidLaDAGenerationConfig

        cache = resolve_cache_strategy(*parse_cache(cache_strategy))
        settings = VidLaDAGenerationConfig(
            max_new_tokens=max_new_tokens, block_length=block_length, max_denoising_steps=max_denoising_steps
        )
        plan = plan_refreshes(cache, settings)
        typer.echo(format_refreshes(plan))
        saving, video = plan_saving(cache, settings, frames, tokens_per_frame), f"{frames} x {tokens_per_frame}"
        typer.echo(f"{saving:.1f} times fewer operations than exact decoding (8B, {video} visual tokens)")
        if plot is not None:
            typer.echo(f"Drawn in {draw_refreshes(plan, cache_strategy, plot)}.")
