from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from vidlada_hf.inference.terminal import MASK_GLYPH

from .conftest import FOLDER, load_module

QUESTION = "What color is the bar?"


@pytest.fixture(scope="module")
def script():
    return load_module("stream_picture")


@pytest.fixture(scope="module")
def recorded(script):
    return script.record(QUESTION)


def letters(screen):
    return "".join(letter for line in screen for letter, _ in line).strip()


def test_the_command_is_typed_and_its_masks_become_the_answer(script, recorded):
    typed, shown = recorded
    command = f'$ vidlada ask clip.mp4 "{QUESTION}" --frames 8 --stream'
    assert letters(typed[-1]) == command and all(command.startswith(letters(screen)) for screen in typed)
    assert [len(letters(screen)) for screen in typed] == sorted({len(letters(screen)) for screen in typed})
    *drafts, last = shown
    assert drafts and all("brown" in {color for line in draft for _, color in line} for draft in drafts)
    assert script.answer_on(last) == "green" and letters(last).endswith("$")
    assert {color for line in last for _, color in line} == {"default"}


def test_masks_and_finished_blocks_are_on_the_screen(script):
    terminal = script.Terminal()
    for text in (
        "done ",
        f"\0337\033[33m{MASK_GLYPH * 70}\033[0m",
        "",
        "\0338\033[J",
        f"\0337\033[33mbar{MASK_GLYPH}\033[0m",
    ):
        print(text, end="", flush=True, file=terminal)
    first, _, last = terminal.states
    assert letters(first).count(MASK_GLYPH) == 70 and letters(last) == f"done bar{MASK_GLYPH}"
    assert [color for _, color in last[0][:9]] == ["default"] * 5 + ["brown"] * 4


def test_a_picture_a_tick_that_ends_with_the_answer(script, recorded, tmp_path):
    typed, shown = recorded
    frames = np.stack([np.full((64, 64, 3), level, np.uint8) for level in (0, 120, 240)])
    pictures = script.draw(typed, shown, frames)
    assert len(pictures) == len(typed) + script.DRAFTS + script.END  # of one draft
    path = tmp_path / "new" / "stream.webp"
    script.save(pictures, path)
    saved = Image.open(path)
    assert saved.size == (script.WIDTH, script.HEIGHT) and saved.info["loop"] == 0
    saved.seek(saved.n_frames - 1)
    last = np.asarray(saved.convert("RGB"), int)
    assert np.abs(last - np.asarray(pictures[-1], int)).mean() < 4  # it is compressed
    assert np.abs(last - np.asarray(pictures[len(typed)], int)).mean() > 0.5
    assert abs(last[script.HEIGHT // 2, script.HEIGHT // 2] - 240).max() < 9  # the clip's last frame


def test_all_frames_are_shown(script, recorded):
    pictures = script.draw(*recorded, np.zeros((12, 8, 8, 3), np.uint8))
    assert len(pictures) == 12 * script.FRAME


def test_a_wrong_answer_is_not_drawn(script, recorded, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "QUESTION", replace(script.QUESTION, answers=("red",)))
    monkeypatch.setattr(script, "record", lambda question: recorded)
    with pytest.raises(SystemExit, match="wrong: 'green'"):
        script.main(["--output", str(tmp_path / "stream.webp")])
    assert not list(tmp_path.iterdir())


def test_the_picture_of_the_readme_is_small(script):
    path = FOLDER.parent / "docs" / "stream.webp"
    assert path.stat().st_size < 300_000 and Image.open(path).size == (script.WIDTH, script.HEIGHT)
