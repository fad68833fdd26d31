"""A run in several processes of this machine, and how a process ends with the one that started it.

`python -m vidlada_hf.training.launch RECIPE ERROR_FILE` is a worker of `launch`. It imports nothing heavy before it
watches its parent, so that one killed early leaves no worker behind either.
"""

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

POLL_SECONDS = 0.5


def launch(recipe_file: Path, processes: int) -> Path:
    """Runs a recipe in so many processes, which share each batch, by torchrun's launcher in this process.

    Returns:
        The folder of the trained model.

    Raises:
        ValueError, OSError: as `run.train`, before a process is started; or the run failed, and the message says why.
    """
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    from .preparation import prepare
    from .recipe import Recipe
    from .run_state import final_model

    recipe = Recipe.from_yaml(recipe_file)
    prepare(recipe, processes)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))  # torchrun's choice is 1
    with tempfile.TemporaryDirectory() as folder:
        reason = Path(folder) / "error"  # what stopped a process, not what its stop did to the others
        worker = ["-m", "vidlada_hf.training.launch", str(recipe_file), str(reason)]
        try:
            torchrun.main(["--standalone", f"--nproc-per-node={processes}", *worker])
        except ChildFailedError as error:
            code = error.get_first_failure()[1].exitcode
            why = reason.read_text() if reason.is_file() else f"exit code {code}"
            raise ValueError(f"The run in {processes} processes was stopped: {why}") from error
        except SignalException as error:
            raise KeyboardInterrupt from error
    return final_model(recipe)


def exit_with_parent() -> None:
    """From now on this process ends when the process that started it is gone, however that ended."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def work(recipe_file: str, error_file: str) -> None:
    """What a process of `launch` does; the file gets what stopped it."""
    exit_with_parent()
    from .recipe import Recipe
    from .run import train

    try:
        train(Recipe.from_yaml(recipe_file), is_prepared=True)
    except (ValueError, OSError) as error:
        Path(error_file).write_text(str(error))
        sys.exit(f"vidlada: {error}")


if __name__ == "__main__":
    work(*sys.argv[1:])


__all__ = ["exit_with_parent", "launch"]
