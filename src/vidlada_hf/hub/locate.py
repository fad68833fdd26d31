"""Which checkpoint a name stands for: a folder, an id on the Hub, or the one that comes with the package.

Nothing heavy is imported before a folder is there, so that a mistyped name is answered at once.
"""

import json
import re
from pathlib import Path
from typing import Any

EMBEDDED_CHECKPOINT = Path(__file__).parents[1] / "checkpoints" / "vidlada-tiny"


def find_checkpoint(model: str | None) -> str:
    """The folder or id to load.

    Args:
        model: a checkpoint's folder or its id on the Hub; None: the checkpoint that comes with the package.

    Raises:
        FileNotFoundError: it is neither a folder with a config.json nor an id, OWNER/NAME. Where there is a folder
            OWNER, a folder is meant: the Hub, which may take a minute to answer, is not asked.
        ValueError: it is an official checkpoint, which must be converted first; or its config.json is damaged.
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
    config = read_config(path)
    from ..modeling.official_checkpoint_vidlada import is_official_config

    if is_official_config(config):
        raise ValueError(f"{model} is an official checkpoint: run `vidlada convert {model} DIR` and pass DIR.")
    return model


def read_config(folder: Path) -> dict[str, Any]:
    """The fields of a folder's config.json.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no JSON object.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no config.json: pass the folder of a VidLaDA checkpoint.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}): copy it again.") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds no JSON object ({{...}}): copy it again.")
    return config


__all__ = ["EMBEDDED_CHECKPOINT", "find_checkpoint", "read_config"]
