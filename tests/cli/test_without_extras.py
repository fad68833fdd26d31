"""`pip install` without extras: every command works, or says at once which extra it needs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vidlada_hf import EMBEDDED_CHECKPOINT

ROOT = Path(__file__).parents[2]
# Others come along: yaml with transformers, and with some versions of typer pydantic.
OF_EXTRAS = {"datasets", "gradio", "matplotlib", "peft", "tensorboard"}
CLIP = EMBEDDED_CHECKPOINT / "demo" / "clip.mp4"
QUESTION = "Which shape appears first?"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what is installed here, but for the packages of extras."""
    folder = tmp_path_factory.mktemp("packages")
    for site in filter(os.path.isdir, (path for path in sys.path if path.endswith("-packages"))):
        for entry in Path(site).iterdir():
            if entry.name.partition("-")[0] not in OF_EXTRAS and not (folder / entry.name).exists():
                (folder / entry.name).symlink_to(entry)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("ask", CLIP, QUESTION), 0, "cross"),
        (("batch", CLIP.parent, "--question", QUESTION, "--out", "out.jsonl", "--frames", 8), 0, "All 1 lines"),
        (("demo",), 0, "For a picture of the last answer being denoised: pip install 'vidlada_hf[demo]'"),
        (("export", EMBEDDED_CHECKPOINT, "exported"), 0, "Exported"),
        (("plan", "--model", EMBEDDED_CHECKPOINT, "--cache-strategy", "mars"), 0, "bnb-nf4"),
        (("schedule",), 0, "times fewer operations"),
        (("schedule", "--plot", "plan.png"), 1, "matplotlib is not installed: pip install 'vidlada_hf[demo]'"),
        (("bench",), 1, "matplotlib is not installed: pip install 'vidlada_hf[eval]'"),
        (("page",), 1, "gradio is not installed: pip install 'vidlada_hf[page]'"),
        (("train", "recipe.yaml"), 1, "is not installed: pip install 'vidlada_hf[train]'"),
    ],
)
def test_a_command_works_or_names_its_extra(packages: Path, tmp_path: Path, arguments, code: int, said: str) -> None:
    command = [sys.executable, "-S", "-c", "from vidlada_hf.cli import app; app()", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(packages)])}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == code and said in done.stdout + done.stderr, done.stderr
    assert "Traceback" not in done.stderr
