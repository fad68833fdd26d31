"""Which checkpoint a name stands for: a folder, an id on the Hub, or the one that comes with the package.

Nothing heavy is imported before a folder is there, so that a mistyped name is answered at once.
"""

import json
import re
from pathlib import Path

EMBEDDED_CHECKPOINT = Path(__file__).parents[1] / "checkpoints" / "vidlada-tiny"


def find_checkpoint(model: str | None) -> str:
    """The folder or id to load.

    Args:
        model: a checkpoint's folder or its id on the Hub; None: the checkpoint that comes with the package.

    Raises:
        FileNotFoundError: it is neither a folder with a config.json nor an id, OWNER/NAME. Where there is a folder
            OWNER, a folder is meant: the Hub, which may take a minute to answer, is not asked.
        ValueError: it is an official checkpoint, which must be converted first.
    """
    if model is None:
        if not (EMBEDDED_CHECKPOINT / "config.json").is_file():
            raise FileNotFoundError(
                "No checkpoint comes with this version of the package: pass a folder or an id on the Hub (`--model`)."
            )
        return str(EMBEDDED_CHECKPOINT)
    path = Path(model)
    if not path.is_dir():
        if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", model) or path.exists() or path.parent.exists():
            raise FileNotFoundError(
                f"{model} is no folder: pass a checkpoint's folder or its id on the Hub (OWNER/NAME)."
            )
        return model
    if not (path / "config.json").is_file():
        raise FileNotFoundError(f"{model} holds no config.json: pass the folder of a VidLaDA checkpoint.")
    from ..modeling.official_checkpoint_vidlada import is_official_config

    if is_official_config(json.loads((path / "config.json").read_text(encoding="utf-8"))):
        raise ValueError(f"{model} is an official checkpoint: run `vidlada convert {model} DIR` and pass DIR.")
    return model


__all__ = ["EMBEDDED_CHECKPOINT", "find_checkpoint"]
