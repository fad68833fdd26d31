"""The package works with the lowest versions that setup.cfg allows: installed alone, asked, tested.

Takes minutes to hours: the environment holds a torch of its own.
"""

import configparser
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import processes

pytestmark = pytest.mark.nightly

ROOT = Path(__file__).parents[2]
EXTRAS = ("demo", "train")
TOOLS = ("pytest", "hypothesis", "sk-video")
TESTED = ("tests/modeling", "tests/processing", "tests/training", "tests/cli", "tests/test_registration.py")


def requirements(*extras: str) -> list[str]:
    """Lines of setup.cfg: what the package needs and what its extras need."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    groups = [config["options"]["install_requires"], *(config["options.extras_require"][name] for name in extras)]
    return [line for group in groups for line in group.split("\n") if line]


def lowest_python() -> str:
    """The lowest Python that this system has, of those that the package supports."""
    for name in ("python3.10", "python3.11"):
        path = shutil.which(name)
        if path and subprocess.run([path, "-c", "pass"], check=False, capture_output=True).returncode == 0:
            return path
    return sys.executable


def run(command: Sequence[Any], **options: Any) -> str:
    """Runs a command to its end and returns what it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = processes.run(command, timeout=4 * 3600, env=environment, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def binaries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of an environment with the lowest versions."""
    folder = tmp_path_factory.mktemp("lowest")
    run([lowest_python(), "-m", "venv", folder])
    pins = [line.replace(">=", "==") for line in requirements(*EXTRAS)]
    tools = [line for line in requirements("test") if line.startswith(TOOLS)]
    run([folder / "bin" / "python", "-m", "pip", "install", *pins, *tools, f"{ROOT}[{','.join(EXTRAS)}]"])
    return folder / "bin"


def test_each_requirement_says_its_lowest_version() -> None:
    assert all(line.count(">=") == 1 and "," not in line for line in requirements(*EXTRAS))


def test_the_demo_answers(binaries: Path, tmp_path: Path) -> None:
    run([binaries / "vidlada", "demo", "--output", tmp_path], cwd=tmp_path)
    replies = json.loads((tmp_path / "answers.json").read_text())
    assert sum(reply["score"] for reply in replies) > len(replies) / 2


def test_its_tests_pass(binaries: Path) -> None:
    """Those of `make test` in the rooms that these versions reach into."""
    marks = ("-m", "not slow and not gpu and not nightly", "-p", "no:cacheprovider")
    run([binaries / "python", "-m", "pytest", "-q", *marks, *TESTED], cwd=ROOT)
