"""transformers' common tests, from the sdist of the version that is installed, pass for what we build on it.

The sdist carries those of models, configurations, processors, video processors and tensor parallelism; not those of
generation and of exporting (see `upstream.package.LEFT_OUT`). What is excluded stands, with its reason, in the suites.
"""

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import transformers

from .upstream.package import FOLDER

pytestmark = pytest.mark.nightly

SUITES = Path(__file__).parent / "upstream"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """With the sdist's tests and what they import."""
    folder, version = tmp_path_factory.mktemp("sdist"), transformers.__version__
    pip = [sys.executable, "-m", "pip"]
    source = [f"transformers=={version}", "--no-deps", "--no-binary", "transformers", "--dest", str(folder)]
    subprocess.run([*pip, "download", *source], check=True)
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "needed"), "parameterized"], check=True)
    with tarfile.open(folder / f"transformers-{version}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    paths = (str(ROOT / "src"), str(ROOT), str(folder / "needed"))
    tests = str(folder / f"transformers-{version}" / "tests")
    return os.environ | {FOLDER: tests, "PYTHONPATH": os.pathsep.join(paths)}


@pytest.mark.parametrize(("suite", "least"), [("model", 110), ("processing", 55)])
def test_the_common_tests_pass(environment: dict[str, str], suite: str, least: int) -> None:
    """`least`: so many at least are not skipped, or something was not found."""
    options = ["-q", "-rs", "-W", "ignore", "-o", "addopts=", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, str(SUITES / f"{suite}_suite.py")]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert int(re.findall(r"(\d+) passed", done.stdout)[-1]) >= least
