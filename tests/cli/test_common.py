import subprocess
import sys
from pathlib import Path

COMMANDS = ("ask", "bench", "convert", "demo", "export", "schedule", "train")


def test_help_is_light() -> None:
    code = "import sys, vidlada_hf.cli; assert not {'torch', 'transformers', 'av', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


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
