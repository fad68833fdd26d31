"""`vidlada plan`."""

from typing import Annotated

import typer

from ..hub.locate import find_checkpoint
from .common import app, user_errors
from .options import BlockLength, CacheStrategies


@app.command()
def plan(
    frames: Annotated[int, typer.Option(help="Of each video.", min=0)] = 32,
    device_memory: Annotated[
        str | None, typer.Option(help="Of the GPU: 24GB (10^9 bytes) or 24GiB.", show_default="say nothing of it")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Questions at a time.", min=1)] = 1,
    model: Annotated[
        str | None,
        typer.Option(
            help="Folder of a checkpoint or its id on the Hub, of which config.json is read.", show_default="8B"
        ),
    ] = None,
    cache_strategy: CacheStrategies = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            help="float32, bfloat16, int8 or float8 (torchao), bnb-int8 or bnb-nf4 (bitsandbytes); may be repeated.",
            show_default="bfloat16, int8 and bnb-nf4",
        ),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Length of the canvas, in tokens.", min=1)] = 128,
    block_length: BlockLength = None,
) -> None:
    """Show what answering needs of a GPU's memory, and what fits, before any weights are there."""
    with user_errors():
        name = None if model is None else find_checkpoint(model)
        from ..evaluation.memory_plan import GB, RESERVED, Workload, parse_bytes, plan_table
        from ..modeling.configuration_vidlada import VidLaDAConfig

        memory = None if device_memory is None else parse_bytes(device_memory)
        config = VidLaDAConfig() if name is None else VidLaDAConfig.from_pretrained(name)
        workload = Workload(frames, batch_size, max_new_tokens=max_new_tokens, block_length=block_length)
        table = plan_table(config, workload, memory, cache_strategy, precision)
        typer.echo(f"{'8B' if name is None else name}: {batch_size} x {frames} frames, {max_new_tokens} new tokens; GB")
        typer.echo(table)
        if memory is not None:
            typer.echo(f"{RESERVED / GB:.0f} GB of {memory / GB:.1f} GB is left free, for CUDA itself.")
