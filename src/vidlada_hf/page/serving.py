"""Serves the page on this machine, and deletes what was uploaded."""

import os
import signal
import sys
import tempfile
from typing import Any

import gradio as gr

from .layout import Page
from .markup import STYLE
from .samples import SAMPLE_VIDEO
from .videos import PageModel

WAITING = 32  # visitors in the queue; who comes later is told so
CLEANING, KEPT_SECONDS = 60, 1800
FONTS = ("system-ui", "sans-serif")  # of the visitor's machine: nothing is fetched from elsewhere


def serve(
    model: PageModel, is_embedded: bool, host: str = "127.0.0.1", port: int = 7860, max_megabytes: int = 200
) -> None:
    """Serves until it is interrupted.

    Args:
        host: the address to listen at. The default is reached from this machine alone.
        max_megabytes: of an uploaded file. It is deleted half an hour after it came, and all of them at the end.

    Raises:
        OSError: the port is taken.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by itself it would leave the uploads behind
    with tempfile.TemporaryDirectory(prefix="vidlada-page-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        blocks = gr.Blocks(analytics_enabled=False, title="VidLaDA", delete_cache=(CLEANING, KEPT_SECONDS))
        page = Page(model, is_embedded, blocks)
        page.blocks.queue(max_size=WAITING).launch(**launch_options(host, port, max_megabytes))


def launch_options(host: str, port: int, max_megabytes: int) -> dict[str, Any]:
    """How gradio serves the page: here alone, without the network, without its own links."""
    return {
        "server_name": host,
        "server_port": port,
        "share": False,
        "allowed_paths": [SAMPLE_VIDEO],
        "max_file_size": max_megabytes << 20,
        "css_paths": str(STYLE),
        "theme": gr.themes.Soft(font=FONTS, font_mono=("ui-monospace", "monospace")),
        "footer_links": [],
        "ssr_mode": False,
    }


__all__ = ["serve"]
