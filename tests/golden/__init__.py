"""Where the numbers recorded from the official code are.

`RECORDING` is the full recording (the folder of the environment variable VIDLADA_GOLDEN, or shared/golden beside the
repository), which not everybody has. `SELECTION` is this folder, with the same layout. `GOLDEN` is the recording where
it is there, else the selection.
"""

import os
from pathlib import Path

SELECTION = Path(__file__).parent


def find_recording() -> Path | None:
    """The full recording, if there is one.

    Raises:
        FileNotFoundError: VIDLADA_GOLDEN is set to a folder that holds none.
    """
    named = os.environ.get("VIDLADA_GOLDEN")
    folder = Path(named) if named else SELECTION.parents[2] / "shared" / "golden"
    if folder.resolve() == SELECTION.resolve():
        return None
    if (folder / "manifest.json").is_file():
        return folder
    if named:
        raise FileNotFoundError(f"VIDLADA_GOLDEN={named}: there is no recording (no manifest.json).")
    return None


RECORDING = find_recording()
GOLDEN = RECORDING or SELECTION
