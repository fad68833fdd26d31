"""Processes that end with the test that started them, and with a killed pytest."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from subprocess import PIPE
from typing import Any

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def start(command: Sequence[Any], **options: Any) -> subprocess.Popen:
    """Starts a command in a process group of its own, which `end` ends. On Linux it ends with this process too."""
    return subprocess.Popen(list(map(str, command)), start_new_session=True, preexec_fn=_end_with_parent, **options)


def end(process: subprocess.Popen) -> None:
    """Ends a process and its group: gently, so that a launcher ends its workers, or else by force."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, number)
            process.wait(20)


def run(command: Sequence[Any], timeout: float = 600, **options: Any) -> subprocess.CompletedProcess:
    """As `subprocess.run`, with what it prints in `stdout` and `stderr` as texts."""
    process = start(command, stdout=PIPE, stderr=PIPE, text=True, **options)
    try:
        printed, errors = process.communicate(timeout=timeout)
    finally:
        end(process)
    return subprocess.CompletedProcess(process.args, process.returncode, printed, errors)


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
