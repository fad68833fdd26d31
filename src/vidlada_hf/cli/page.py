"""`vidlada page`."""

from typing import Annotated

import typer

from ..hub.locate import find_checkpoint
from .common import app, require_extra, tell_if_embedded, user_errors
from .options import Device, Dtype, Model


@app.command()
def page(
    model: Model = None,
    port: Annotated[int, typer.Option(help="Of the page.", min=1, max=65535)] = 7860,
    host: Annotated[
        str, typer.Option(help="Address to listen at. 0.0.0.0 lets the whole network in, and asks for no password.")
    ] = "127.0.0.1",
    max_megabytes: Annotated[int, typer.Option(help="Of an uploaded video.", min=1)] = 200,
    max_minutes: Annotated[float, typer.Option(help="Of an uploaded video.", min=0)] = 10,
    device: Device = None,
    dtype: Dtype = "auto",
) -> None:
    """Show a page in the browser on which answers are denoised before your eyes."""
    with user_errors("page", kept="What was uploaded is deleted."):
        require_extra("page")
        find_checkpoint(model)
        tell_if_embedded(model)
        from ..page.serving import serve
        from ..page.videos import PageModel

        serve(PageModel(model, device, dtype, 60 * max_minutes), model is None, host, port, max_megabytes)
