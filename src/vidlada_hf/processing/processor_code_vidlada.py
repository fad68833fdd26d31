"""The code that travels with a saved processor, and the names under which the Auto classes find it."""

import os
import shutil
from pathlib import Path

PROCESSOR_CODE = {"AutoProcessor": "processing_vidlada.VidLaDAProcessor"}
VIDEO_PROCESSOR_CODE = {"AutoVideoProcessor": "video_processing_vidlada.VidLaDAVideoProcessor"}


def copy_processor_code(folder: str | os.PathLike) -> None:
    """Copies the modules beside this one into a folder; older versions are replaced."""
    for module in Path(__file__).parent.glob("*_vidlada.py"):
        shutil.copyfile(module, Path(folder) / module.name)


__all__ = ["PROCESSOR_CODE", "VIDEO_PROCESSOR_CODE", "copy_processor_code"]
