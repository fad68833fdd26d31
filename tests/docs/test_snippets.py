"""What a reader copies from README and docs works: the Python runs, and commands, options and names exist.

Every Python block of a page runs, in the page's order and in one namespace, and every command of a bash block, unless
the line before the block is `<!-- not run: REASON -->`.
"""

import importlib
import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer
import yaml

from vidlada_hf import EMBEDDED_CHECKPOINT
from vidlada_hf.cli import app
from vidlada_hf.training.recipe import Recipe

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?P<before>[^\n]*)\n```(?P<language>\w+)\n(?P<text>.*?)\n```", re.DOTALL)
NAME = re.compile(r"\b(?:vidlada_hf|moving_shapes)(?:\.\w+)+(?!\w|[-/])")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Line and text of each block of a language that is not marked as one that cannot run."""
    content = page.read_text(encoding="utf-8")
    return [
        (content.count("\n", 0, found.start("text")), found["text"])
        for found in BLOCK.finditer(content)
        if found["language"] == language and not found["before"].startswith("<!-- not run")
    ]


def resolve(name: str) -> None:
    """Imports a dotted name, whatever part of it is a module."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            value = getattr(value, part)
        return


@every_page
def test_the_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for line, text in blocks(page, "python"):
        exec(compile("\n" * line + text, str(page), "exec"), namespace)


@every_page
def test_the_commands_run(page, tmp_path, monkeypatch):
    """In a folder that holds a video of each name, with the embedded checkpoint for any model that is named."""
    commands = [line for _, text in blocks(page, "bash") for line in text.replace("\\\n", " ").splitlines()]
    monkeypatch.chdir(tmp_path)
    for video in ("clip.mp4", "VIDEOS/clip.mp4") if commands else ():
        Path(video).parent.mkdir(exist_ok=True)
        shutil.copyfile(EMBEDDED_CHECKPOINT / "demo" / "clip.mp4", video)
    for command in commands:
        program, *words = shlex.split(re.sub(r"\bMODEL_DIR_OR_ID\b", str(EMBEDDED_CHECKPOINT), command), comments=True)
        assert program == "vidlada", f"Only the package's own commands run here; say why this does not: {command}"
        assert not app(words, standalone_mode=False), command


@every_page
def test_commands_and_options_exist(page):
    commands = typer.main.get_command(app).commands
    makefile = (ROOT / "Makefile").read_text()
    content = page.read_text(encoding="utf-8")
    for arguments in re.findall(r"^(?:.*?`)?vidlada (\w+ [^`\n]*)", content, re.MULTILINE):
        name, *words = arguments.partition("  #")[0].split()
        known = {option for parameter in commands[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, arguments
    for script in re.findall(r"python ((?:benchmarks|examples)/\w+\.py)", content):
        assert (ROOT / script).is_file(), script
    for target in re.findall(r"`make ([\w-]+)`|^make ([\w-]+)", content, re.MULTILINE):
        assert re.search(f"^{''.join(target)}:", makefile, re.MULTILINE), target


@every_page
def test_names_exist(page):
    for name in NAME.findall(page.read_text(encoding="utf-8")):
        resolve(name)


@every_page
def test_recipes_are_valid(page, tmp_path):
    for number, (_, text) in enumerate(blocks(page, "yaml")):
        if "stages" in yaml.safe_load(text):
            (tmp_path / f"{number}.yaml").write_text(text)
            Recipe.from_yaml(tmp_path / f"{number}.yaml")
