"""Work in several processes of this machine, and how a process ends with the one that started it.

Nothing heavy is imported before a process watches its parent, so that one killed early leaves no worker behind either.
"""

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.5


def run_in_processes(module: str, arguments: Sequence[str], processes: int) -> None:
    """Runs `python -m MODULE ARGUMENTS ERROR_FILE` in so many processes, by torchrun's launcher in this process.

    Raises:
        ValueError: a process failed; the message says why, as `work_in_process` wrote it down.
    """
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))  # torchrun's choice is 1
    with tempfile.TemporaryDirectory() as folder:
        reason = Path(folder) / "error"  # what stopped a process, not what its stop did to the others
        try:
            torchrun.main(["--standalone", f"--nproc-per-node={processes}", "-m", module, *arguments, str(reason)])
        except ChildFailedError as error:
            code = error.get_first_failure()[1].exitcode
            why = reason.read_text() if reason.is_file() else f"exit code {code}"
            raise ValueError(f"The run in {processes} processes was stopped: {why}") from error
        except SignalException as error:
            raise KeyboardInterrupt from error


def work_in_process(work: Callable[[], Any], error_file: str) -> None:
    """What a process of `run_in_processes` does; the file gets what a user can mend."""
    exit_with_parent()
    try:
        work()
    except (ValueError, OSError) as error:
        Path(error_file).write_text(str(error))
        sys.exit(f"vidlada: {error}")


def exit_with_parent() -> None:
    """From now on this process ends when the process that started it is gone, however that ended."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


__all__ = ["exit_with_parent", "run_in_processes", "work_in_process"]
