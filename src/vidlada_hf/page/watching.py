"""From what a visitor asks for to what the page shows, step by step. Knows nothing of the widgets."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from ..evaluation.schedule import plan_refreshes
from ..hub.loading import load_settings
from ..modeling.cache_strategies_vidlada import resolve_cache_strategy
from ..modeling.generation_config_vidlada import VidLaDAGenerationConfig
from .canvas_text import canvas_pieces
from .markup import answer_html, canvas_html, frames_html, schedule_html, status_text
from .stepping import Draft, race
from .videos import PageModel

STOPPED = "Stopped."


@dataclass(frozen=True)
class Wish:
    """What a visitor asks for.

    Args:
        video: path of a file.
        question: the visitor's text.
        num_frames: that the model looks at.
        max_new_tokens: length of the canvas.
        share_video: see `PageModel.prompt`.
        pause: seconds after each step, in which it can be read.
    """

    video: str | None
    question: str
    num_frames: int = 8
    max_new_tokens: int = 64
    share_video: bool = False
    pause: float = 0.0

    def check(self) -> None:
        """Raises a ValueError where something is missing."""
        if not self.video:
            raise ValueError("There is no video yet: upload one, or take the sample clip.")
        if not self.question.strip():
            raise ValueError("There is no question yet: write one, or take one of those below.")


@dataclass(frozen=True)
class View:
    """What the page shows at a time, as HTML: the sampled frames, and the answer of each way of decoding."""

    frames: str
    answers: tuple[str, ...]


def watch(model: PageModel, wish: Wish, ways: Sequence[dict[str, str]], stop: threading.Event) -> Iterator[View]:
    """Yields a view after each step, first of all masks. Ends after the step in which `stop` is set.

    Args:
        ways: settings of `generate` for each answer, such as `{"cache_strategy": "mars"}`. All see the same encoded
            video.

    Raises:
        ValueError: something is missing or impossible, or the video cannot be read.
    """
    wish.check()
    titles = [wish.question] if len(ways) == 1 else [" + ".join(way.values()) for way in ways]
    if stop.is_set():  # while this waited for its turn
        yield View("", tuple(answer_html(title, "", STOPPED) for title in titles))
        return
    # Before the video is read, as they may be refused.
    settings = [load_settings(model.name, {"max_new_tokens": wish.max_new_tokens, **way}) for way in ways]
    prompt = model.prompt(str(wish.video), wish.question, wish.num_frames, wish.share_video, wish.max_new_tokens)
    frames = frames_html(prompt.frames, prompt.times)
    runs = [model.denoise(prompt, each) for each in settings]
    show = partial(show_draft, model, wish.max_new_tokens)
    with closing(race(runs)) as states:
        for drafts in states:
            yield View(frames, tuple(map(show, titles, drafts)))
            is_done = all(draft.is_done for draft in drafts)
            if not is_done and stop.wait(wish.pause):
                yield View(frames, tuple(map(partial(show, is_stopped=True), titles, drafts)))
                return


def show_draft(model: PageModel, max_new_tokens: int, title: str, draft: Draft, is_stopped: bool = False) -> str:
    """A draft as HTML; before the first step so many masks."""
    mask, ends = model.network.config.mask_token_id, model.settings.eos_token_id
    end_ids = {ends} if isinstance(ends, int) else set(ends or ())
    ids = draft.ids or (mask,) * max_new_tokens
    pieces = canvas_pieces(ids, draft.before, model.processor.tokenizer, mask, end_ids)
    note = "Done." if draft.is_done else STOPPED if is_stopped else ""
    return answer_html(title, canvas_html(pieces), f"{status_text(draft)}. {note}".strip())


def show_schedule(cache_strategy: str, max_new_tokens: int) -> str:
    """When a strategy refreshes what, as HTML; a sentence for one that decides as it goes."""
    settings = VidLaDAGenerationConfig(max_new_tokens=max_new_tokens)
    try:
        return schedule_html(plan_refreshes(resolve_cache_strategy(cache_strategy), settings))
    except ValueError as error:
        return f"<p>{error}</p>"


__all__ = ["View", "Wish", "show_schedule", "watch"]
