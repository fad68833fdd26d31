"""The example of Ray Data: rows in, Parquet out, and on again. Ray is installed in an environment of its own.

Ray gives up where a busy machine does not start its processes in time.
"""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests import processes
from vidlada_hf import EMBEDDED_CHECKPOINT

pytestmark = pytest.mark.nightly

ROOT = Path(__file__).parents[2]
RAY = "ray[data]==2.60.0"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds Ray and sees the packages of this one."""
    folder = tmp_path_factory.mktemp("ray")
    processes.run([sys.executable, "-m", "venv", folder], timeout=600)
    (packages,) = folder.glob("lib/python*/site-packages")
    seen = [path for path in sys.path if path.endswith("-packages")]
    (packages / "seen.pth").write_text("\n".join([str(ROOT / "src"), *seen]))
    done = processes.run([folder / "bin" / "python", "-m", "pip", "install", RAY], timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "bin" / "python"


def test_a_list_is_answered_once(python: Path, tmp_path: Path) -> None:
    import pyarrow.parquet

    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    command = [python, ROOT / "examples" / "batch_ray.py", videos, out, "Which shape appears first?"]

    def run(names: tuple[str, ...]) -> dict[str, tuple[str | None, str | None]]:
        for name in names:
            shutil.copy(EMBEDDED_CHECKPOINT / "demo" / "clip.mp4", videos / name)
        done = processes.run(command, timeout=1800, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
        rows = pyarrow.parquet.read_table(out).to_pylist()
        assert len({row["id"] for row in rows}) == len(rows)
        return {row["id"]: (row["answer"], row["error"]) for row in rows}

    (videos / "bad.mp4").write_bytes(b"no video" * 99)
    first = run(("1.mp4", "2.mp4", "3.mp4"))
    answer, problem = first.pop("bad.mp4")
    assert answer is None and problem is not None and "bad.mp4" in problem
    assert set(first) == {"1.mp4", "2.mp4", "3.mp4"} and set(first.values()) == {("cross", None)}

    (out / "cut.parquet").write_bytes(b"PAR1 half of it")  # its process was killed
    files = {file: file.stat().st_mtime_ns for file in out.iterdir() if file.name != "cut.parquet"}
    again = run(("4.mp4",))
    assert set(again) == {"1.mp4", "2.mp4", "3.mp4", "4.mp4", "bad.mp4"} and again["4.mp4"] == ("cross", None)
    assert all(file.stat().st_mtime_ns == time for file, time in files.items())
