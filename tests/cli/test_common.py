import subprocess
import sys
from pathlib import Path

import pytest

import vidlada_hf

COMMANDS = ("ask", "batch", "bench", "convert", "demo", "export", "schedule", "train")


def test_help_is_light() -> None:
    code = "import sys, vidlada_hf.cli; assert not {'torch', 'transformers', 'av', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("ask", "no-such.mp4", "What?"),
        ("ask", "no-such.mp4", "What?", "--allow-urls"),
        ("ask", ".", "What?", "--model", "./no-such-model"),
        ("batch", "no-such-list", "--question", "What?", "--out", "out.jsonl"),
        ("batch", ".", "--question", "What?", "--out", "out.jsonl", "--model", "./no-such-model"),
        ("bench", "no-such-model"),
        ("bench", "--questions", "no-such.jsonl"),
        ("convert", "no-such-model", "out"),
        ("demo", "--model", "no-such-model"),
        ("export", "no-such-model", "out"),
        ("train", "no-such-recipe.yaml"),
        ("ask", ".", "What?", "--cache-strategy", "no-such"),
        ("batch", ".", "--question", "What?", "--out", "out.jsonl", "--unmasking", "no-such"),
        ("bench", "--dtype", "no-such"),
        ("bench", "--cache-strategy", "mars", "--cache-strategy", "no-such"),
        ("bench", "--unmasking", "threshold:no-such"),
        ("schedule", "--cache-strategy", "mars:no-such"),
    ],
)
def test_what_is_mistyped_is_refused_before_anything_heavy_is_imported(arguments) -> None:
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


@pytest.mark.parametrize(
    ("arguments", "module", "extra"),
    [
        (("train", "recipe.yaml"), "yaml", "train"),
        (("train", "recipe.yaml"), "peft", "train"),
        (("bench", "--output", "bench.json"), "matplotlib", "eval"),
        (("schedule", "--plot", "plan.png"), "matplotlib", "demo"),
    ],
)
def test_a_missing_extra_is_named_at_once(vidlada, monkeypatch, tmp_path: Path, arguments, module, extra) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    code, out, message = vidlada(*arguments)
    assert (code, out) == (1, "") and f"{module} is not installed: pip install 'vidlada_hf[{extra}]'" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (("ask", ".", "What?"), "Stopped."),
        (("bench", "--output", "b.json"), "b.json keeps what was measured; the same command goes on."),
        (("demo",), "Stopped."),
    ],
)
def test_ctrl_c_says_what_is_kept(vidlada, monkeypatch, arguments, kept: str) -> None:
    def interrupt(model):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"vidlada_hf.cli.{arguments[0]}.find_checkpoint", interrupt)
    code, out, message = vidlada(*arguments)
    assert (code, out) == (130, "") and message.endswith(kept)
