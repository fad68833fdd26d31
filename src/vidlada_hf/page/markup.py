"""What the page shows, as HTML. Whatever a visitor or the model wrote is escaped."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .canvas_text import State
from .stepping import Draft

STYLE = Path(__file__).with_name("page.css")
MASK = '<span class="vl-mask"></span>'
LEGEND = (
    f'<div class="vl-legend"><span>{MASK} masked</span><span><span class="vl-new">new</span> committed in this step'
    '</span><span><span class="vl-known">word</span> committed before</span></div>'
)


def canvas_html(pieces: Sequence[tuple[str, State]]) -> str:
    """A canvas: masks as boxes, new text in a color of its own."""
    return "".join(_piece_html(text, state) for text, state in pieces)


def _piece_html(text: str, state: State) -> str:
    word = text.lstrip()  # a blank before a new word is not new to the eye
    blank = text[: len(text) - len(word)]
    return MASK if state == "mask" else f'{blank}<span class="vl-{state}">{escape(word)}</span>'


def status_text(draft: Draft) -> str:
    """Steps, seconds and tokens a forward pass."""
    steps = f"{draft.steps} step{'s' * (draft.steps != 1)}"
    return f"{steps} · {draft.seconds:.2f} s · {draft.tokens_per_forward:.1f} tokens a forward pass"


def answer_html(title: str, canvas: str, status: str) -> str:
    """An answer as far as it is, below its title, and how it came about."""
    return (
        f'<article class="vl-turn"><p class="vl-title">{escape(title)}</p>'
        f'<p class="vl-canvas">{canvas}</p><p class="vl-status">{escape(status)}</p></article>'
    )


def frames_html(frames: np.ndarray, times: Sequence[float]) -> str:
    """The frames that the model looks at, uint8 (frames, height, width, 3), with their times in seconds."""
    figures = []
    for number, frame in enumerate(frames):
        caption = f"{times[number]:.1f} s" if len(times) else f"frame {number + 1}"
        figures.append(f'<figure><img alt="" src="{_data_address(frame)}"><figcaption>{caption}</figcaption></figure>')
    return f'<div class="vl-frames" tabindex="0" aria-label="Frames">{"".join(figures)}</div>'


def _data_address(frame: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def schedule_html(plan: Mapping[str, torch.Tensor]) -> str:
    """A drawing of `plan_refreshes`: a row a kind of tokens and group of layers, steps to the right."""
    rows = []
    for kind, refreshed in plan.items():
        groups = refreshed.shape[1]
        for group in range(groups):
            place = f", layers {group + 1} of {groups}" if groups > 1 else ""
            rows.append((f"{kind} tokens{place}", refreshed[:, group]))
    drawn = []
    for name, marks in rows:
        steps = len(marks)
        cells = "".join(f'<rect x="{i}" width="0.85" height="1"/>' for i in marks.nonzero()[:, 0].tolist())
        count = int(marks.sum())
        drawn.append(
            f'<div class="vl-row"><span>{escape(name)}</span><svg viewBox="0 0 {steps} 1" preserveAspectRatio="none" '
            f'role="img" aria-label="{count} of {steps} steps">{cells}</svg><span>{count} of {steps}</span></div>'
        )
    return f'<div class="vl-schedule">{"".join(drawn)}</div>'


__all__ = ["LEGEND", "STYLE", "answer_html", "canvas_html", "frames_html", "schedule_html", "status_text"]
