"""Each script of benchmarks/ is run at its smallest, so that none can rot."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


def load_module(name: str):
    """A module of benchmarks/."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, *arguments: object):
    """The script's module, after its `main`."""
    module = load_module(name)
    module.main([str(argument) for argument in arguments])
    return module


def load(folder: Path, name: str) -> dict:
    """What a script wrote into a folder."""
    return json.loads((folder / f"{name}.json").read_text())


@pytest.fixture(scope="session")
def results(tmp_path_factory) -> Path:
    """A folder with what the scripts about MARS-Cache wrote."""
    folder = tmp_path_factory.mktemp("results")
    for name in ("mars_speed_cpu", "mars_speed_gpu", "mars_scaling"):
        run(name, "--quick", "--output", folder / f"{name}.json", *(["--threads", 1] if "gpu" not in name else []))
    run("mars_accuracy", "whole", "--quick", "--output", folder / "mars_accuracy.json", "--work", folder / "whole")
    files = ("--output", folder / "mars_parts.json", "--work", folder / "parts")
    run("mars_accuracy", "parts", "--quick", *files, "--only", "no anchors", "interval")
    return folder
