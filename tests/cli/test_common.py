import subprocess
import sys
from pathlib import Path

import pytest

import vidlada_hf

COMMANDS = ("ask", "bench", "convert", "demo", "export", "schedule", "train")


def test_help_is_light() -> None:
    code = "import sys, vidlada_hf.cli; assert not {'torch', 'transformers', 'av', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("ask", "no-such.mp4", "What?"),
        ("ask", "no-such.mp4", "What?", "--allow-urls"),
        ("ask", ".", "What?", "--model", "./no-such-model"),
        ("bench", "no-such-model"),
        ("demo", "--model", "no-such-model"),
    ],
)
def test_a_path_where_nothing_is_is_refused_before_anything_heavy_is_imported(arguments) -> None:
    code = (
        "import sys, vidlada_hf.cli\n"
        f"code = vidlada_hf.cli.app({list(arguments)}, standalone_mode=False)\n"
        "assert code == 1 and not {'torch', 'transformers', 'av', 'numpy'} & sys.modules.keys()"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0 and "no-such" in ran.stderr


def test_the_version_is_told(vidlada) -> None:
    code, out, _ = vidlada("--version")
    assert code == 0 and out.split() == ["vidlada_hf", vidlada_hf.__version__]


def test_help_has_a_short_name(vidlada) -> None:
    for arguments in (("-h",), ("ask", "-h")):
        assert vidlada(*arguments)[1] == vidlada(*arguments[:-1], "--help")[1] != ""


def test_the_console_script_is_installed() -> None:
    script = Path(sys.executable).with_name("vidlada")
    printed = subprocess.run([script, "--help"], capture_output=True, text=True, check=True).stdout
    assert all(command in printed for command in COMMANDS)


def test_a_missing_extra_is_named(vidlada, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    monkeypatch.delitem(sys.modules, "vidlada_hf.training.recipe", raising=False)
    code, _, message = vidlada("train", tmp_path / "recipe.yaml")
    assert code == 1 and "yaml is not installed: pip install 'vidlada_hf[train]'" in message
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, message = vidlada("bench", "--output", tmp_path / "bench.json")
    assert code == 1 and "matplotlib is not installed: pip install 'vidlada_hf[eval]'" in message
