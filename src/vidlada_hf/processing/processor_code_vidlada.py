"""The code that travels with a saved processor, and the names under which the Auto classes find it."""

import os
import shutil
from pathlib import Path

from transformers.utils import PROCESSOR_NAME, VIDEO_PROCESSOR_NAME

PROCESSOR_CODE = {"AutoProcessor": "processing_vidlada.VidLaDAProcessor"}
VIDEO_PROCESSOR_CODE = {"AutoVideoProcessor": "video_processing_vidlada.VidLaDAVideoProcessor"}


def copy_processor_code(json_file_path: str | os.PathLike) -> None:
    """Copies the modules beside this one to where a processor is written, under a name that `save_pretrained` gives it.

    `save_pretrained` writes it before it uploads. Older versions are replaced.
    """
    path = Path(json_file_path)
    if path.name in (PROCESSOR_NAME, VIDEO_PROCESSOR_NAME):
        for module in Path(__file__).parent.glob("*_vidlada.py"):
            shutil.copyfile(module, path.with_name(module.name))


__all__ = ["PROCESSOR_CODE", "VIDEO_PROCESSOR_CODE", "copy_processor_code"]
