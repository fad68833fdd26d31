import base64
import io
import re

import numpy as np
import torch
from PIL import Image

from vidlada_hf.page.markup import MASK, answer_html, canvas_html, frames_html, schedule_html, status_text
from vidlada_hf.page.stepping import Draft

ATTACK = '<script>alert("1")</script>'


def test_what_others_wrote_is_text() -> None:
    shown = answer_html(ATTACK, canvas_html([(ATTACK, "known"), (ATTACK, "new")]), ATTACK)
    assert "<script" not in shown and shown.count("&lt;script&gt;") == 4


def test_a_blank_before_a_new_word_has_no_color() -> None:
    assert canvas_html([("a", "known"), (" b", "new"), ("", "mask")]) == (
        f'<span class="vl-known">a</span> <span class="vl-new">b</span>{MASK}'
    )


def test_status() -> None:
    assert status_text(Draft(steps=1, tokens=2, seconds=0.5)) == "1 step · 0.50 s · 2.0 tokens a forward pass"
    assert status_text(Draft()) == "0 steps · 0.00 s · 0.0 tokens a forward pass"


def test_frames_are_shown_with_their_times() -> None:
    frames = np.stack([np.full((16, 16, 3), value, np.uint8) for value in (0, 200)])
    shown = frames_html(frames, [0.0, 1.25])
    assert re.findall("<figcaption>(.*?)</figcaption>", shown) == ["0.0 s", "1.2 s"]
    pictures = [base64.b64decode(data) for data in re.findall('base64,(.*?)"', shown)]
    levels = [np.asarray(Image.open(io.BytesIO(data))).mean() for data in pictures]
    assert np.allclose(levels, [0, 200], atol=2)
    assert "frame 2" in frames_html(frames, [])


def test_schedule() -> None:
    shown = schedule_html(
        {"visual": torch.tensor([[True, True], [False, True]]), "text": torch.tensor([[True], [True]])}
    )
    assert re.findall("<span>(.*?)</span>", shown) == [
        *("visual tokens, layers 1 of 2", "1 of 2"),
        *("visual tokens, layers 2 of 2", "2 of 2"),
        *("text tokens", "2 of 2"),
    ]
    assert re.findall('x="(.)"', shown) == ["0", "0", "1", "0", "1"]
