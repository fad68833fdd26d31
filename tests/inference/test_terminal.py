import re
import sys

import pytest
import torch
from transformers import TextStreamer

from tests.tiny_models import byte_tokenizer
from vidlada_hf.inference.terminal import MASK_GLYPH, CanvasStreamer, count_lines, make_streamer


def test_canvas_in_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = byte_tokenizer()
    mask = tokenizer.convert_tokens_to_ids("<|mdm_mask|>")
    known = tokenizer("red disc\033").input_ids
    streamer = CanvasStreamer(tokenizer, mask)
    streamer.put(torch.tensor([[1, 2, 3]]))  # the prompt is not shown
    assert capsys.readouterr().out == ""
    streamer.put_draft(torch.tensor([[known[0], mask, *known[2:], mask]]))
    shown = capsys.readouterr().out
    assert f"r{MASK_GLYPH}d disc {MASK_GLYPH}" in shown  # and the escape code of the answer is a space
    streamer.put(torch.tensor([known[:-1]]))
    streamer.put_draft(torch.tensor([[mask]]))
    # Up to 5.23 the base class holds the last word back, and the draft begins with it; from 5.24 on it is printed.
    visible = re.sub(r"\033(\[[0-9]*[A-Za-z]|[0-9A-Z])", "", capsys.readouterr().out)
    assert visible.endswith(f"red disc{MASK_GLYPH}")
    streamer.end()
    assert capsys.readouterr().out.endswith(("\033[Jdisc\n", "\033[J\n"))  # no draft, and the word is there once


def test_lines_of_a_screen() -> None:
    assert [count_lines(text, 10) for text in ("", "a" * 9, "a" * 10, "a\nb")] == [1, 1, 2, 2]


def test_only_a_terminal_is_redrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = byte_tokenizer()
    assert type(make_streamer(tokenizer, 1)) is TextStreamer
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert isinstance(make_streamer(tokenizer, 1), CanvasStreamer)
