"""The commands, as a user types them."""

from pathlib import Path

import pytest

from tests.clips import encode
from tests.tiny_models import build_tiny
from vidlada_hf.cli import app

QUESTION = "Which shape moves?"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tiny checkpoint, whose canvas has 8 tokens where nothing else is asked for."""
    (model, processor), folder = build_tiny(), tmp_path_factory.mktemp("cli") / "tiny"
    model.generation_config.max_new_tokens = 8
    for part in (model, processor):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of H.264."""
    return encode(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=36, fps=12)


@pytest.fixture
def vidlada(capsys: pytest.CaptureFixture[str]):
    """Runs a command: (exit code, stdout, the lines of stderr that a command wrote itself)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = app([str(argument) for argument in arguments], standalone_mode=False)
        out, err = capsys.readouterr()
        return code or 0, out, "\n".join(line for line in err.splitlines() if line.startswith("vidlada: "))

    return run
