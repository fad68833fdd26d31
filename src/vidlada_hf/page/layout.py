"""The widgets of the page, and which of them ask for what."""

import html
import threading
from collections.abc import Iterator
from typing import Any

import gradio as gr
import torch

from .markup import LEGEND
from .menus import LABELS, explain, menu
from .samples import SAMPLE_QUESTIONS, SAMPLE_VIDEO
from .stopping import StopButtons
from .uploads import check_upload
from .videos import PageModel
from .watching import View, Wish, show_schedule, watch

INTRODUCTION = (
    "# VidLaDA\nA video LLM that denoises its answer: every step turns some masks into words, anywhere in the answer."
)
EMBEDDED = "The embedded checkpoint knows moving shapes and nothing else: name your model with `--model`."
SHARE = (
    "Keeps the video's keys and values, and not its features alone. Further questions are answered faster; the video "
    "does not see the question, and some answers differ."
)
COMPARED = (("none", "quota"), ("mars", "threshold"))  # at first, side by side
KEPT_TURNS = 20
AT_ONCE: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


class Page:
    """The page of a model. `blocks` is what gradio serves.

    One denoising runs at a time; who comes later waits in the queue and sees the place in it.
    """

    def __init__(self, model: PageModel, is_embedded: bool, blocks: gr.Blocks) -> None:
        self.model, self.buttons, self.blocks = model, StopButtons(), blocks
        with blocks:
            gr.Markdown(INTRODUCTION + ("\n\n" + EMBEDDED if is_embedded else ""))
            self.wish = self._asking()
            self.frames = gr.HTML(elem_id="frames")
            with gr.Tab("Watch"):
                self._watching()
            with gr.Tab("Side by side"):
                self._comparing()
            with gr.Tab("Schedule"):
                self._scheduling()
        blocks.unload(self._leave)

    def _asking(self) -> list[gr.components.Component]:
        """Video, question and settings: the widgets that a `Wish` is made of, in its order."""
        with gr.Row():
            with gr.Column(scale=2):
                video = gr.Video(SAMPLE_VIDEO, sources=["upload"], label="Video", height=250, elem_id="video")
                sample = gr.Button("Take the sample clip", size="sm")
            with gr.Column(scale=3):
                question = gr.Textbox(SAMPLE_QUESTIONS[0], label="Question", max_length=2000, elem_id="question")
                gr.Examples([[text] for text in SAMPLE_QUESTIONS], question, label="About the sample clip")
                with gr.Accordion("Settings", open=False):
                    frames = gr.Slider(1, 64, 8, step=1, label="Frames", info="That the model looks at.")
                    length = gr.Slider(32, 256, 64, step=32, label="Canvas", info="Length of the answer, in tokens.")
                    pause = gr.Slider(0, 1, 0.2, step=0.05, label="Pause", info="Seconds after each step, to read it.")
                    share = gr.Checkbox(label="Share the video", info=SHARE)
        sample.click(lambda: SAMPLE_VIDEO, None, video, **AT_ONCE)
        video.upload(self._check_upload, video, video, concurrency_limit=4, api_visibility="private")
        return [video, question, frames, length, share, pause]

    def _watching(self) -> None:
        video, question = self.wish[:2]
        turns = gr.State([])
        with gr.Row():
            way = self._way("none", "quota")
        ask, stop = self._run_and_stop("Ask")
        answers = gr.HTML(elem_id="answers", min_height=60)
        self._connect(
            [ask.click, question.submit], stop, self._ask, [turns, *self.wish, *way], [answers, self.frames, turns]
        )
        video.change(lambda: ("", "", []), None, [answers, self.frames, turns], **AT_ONCE)

    def _comparing(self) -> None:
        with gr.Row():
            ways = []
            for names in COMPARED:
                with gr.Column():
                    ways += self._way(*names)
        ask, stop = self._run_and_stop("Ask both")
        with gr.Row():
            answers = [gr.HTML(elem_id=f"answer-{number}", min_height=60) for number, _ in enumerate(COMPARED)]
        self._connect([ask.click], stop, self._compare, [*self.wish, *ways], [*answers, self.frames])

    def _scheduling(self) -> None:
        length = self.wish[3]
        strategy = self._menu("cache_strategy", "mars")
        gr.Markdown(
            "In which steps (to the right) which layers recompute tokens that they could keep. Shallow layers first."
        )
        drawing = gr.HTML(show_schedule("mars", 64), elem_id="schedule")
        for widget in (strategy, length):
            widget.change(show_schedule, [strategy, length], drawing, **AT_ONCE)

    def _way(self, cache_strategy: str, unmasking: str) -> list[gr.Dropdown]:
        """Menus of a strategy and a rule."""
        return [self._menu("cache_strategy", cache_strategy), self._menu("unmasking", unmasking)]

    def _menu(self, setting: str, name: str) -> gr.Dropdown:
        """A menu with what is chosen explained."""
        dropdown = gr.Dropdown(
            menu(setting), value=name, label=LABELS[setting], info=explain(setting, name), min_width=300
        )
        dropdown.input(lambda name: gr.Dropdown(info=explain(setting, name)), dropdown, dropdown, **AT_ONCE)
        return dropdown

    def _run_and_stop(self, label: str) -> tuple[gr.Button, gr.Button]:
        with gr.Row():
            buttons = gr.Button(label, variant="primary"), gr.Button("Stop", variant="stop")
        gr.HTML(LEGEND)
        return buttons

    def _connect(self, triggers: list, stop: gr.Button, function: Any, inputs: list, outputs: list) -> None:
        """What is asked takes the visitor's flag at once, and waits for its turn with it."""
        flag = gr.State()
        asked = gr.on(triggers, self._flag, None, flag, **AT_ONCE)
        asked.then(
            function,
            [flag, *inputs],
            outputs,
            show_progress_on=outputs[:1],  # there a place in the queue is shown
            concurrency_limit=1,
            concurrency_id="model",
            api_visibility="private",
        )
        stop.click(self._leave, **AT_ONCE)

    def _flag(self, request: gr.Request) -> threading.Event:
        return self.buttons.flag(str(request.session_hash))

    def _leave(self, request: gr.Request) -> None:
        self.buttons.press(str(request.session_hash))

    def _check_upload(self, path: str) -> Any:
        """Empties the widget, and says why, where a file is refused."""
        try:
            check_upload(path, self.model.max_seconds)
        except ValueError as error:
            gr.Warning(html.escape(str(error)), duration=None, title="This video is not taken")
            return None
        return gr.skip()

    def _ask(self, flag: threading.Event, turns: list[str], *values: Any) -> Iterator[tuple[Any, ...]]:
        """Answers above those before, newest first."""
        *wish, cache_strategy, unmasking = values
        way = {"cache_strategy": cache_strategy, "unmasking": unmasking}
        for view in errors_shown(watch(self.model, Wish(*wish), [way], flag)):
            now = [*view.answers, *turns][:KEPT_TURNS]
            yield "".join(now), view.frames, now

    def _compare(self, flag: threading.Event, *values: Any) -> Iterator[tuple[Any, ...]]:
        count = len(self.wish)
        wish, names = values[:count], values[count:]
        ways = [{"cache_strategy": names[i], "unmasking": names[i + 1]} for i in range(0, len(names), 2)]
        for view in errors_shown(watch(self.model, Wish(*wish), ways, flag)):
            yield *view.answers, view.frames


def errors_shown(views: Iterator[View]) -> Iterator[View]:
    """What a visitor can mend becomes a message on the page."""
    try:
        yield from views
    except (ValueError, OSError, torch.OutOfMemoryError) as error:
        raise gr.Error(html.escape(str(error)), duration=None, title="Not answered", print_exception=False) from error


__all__ = ["Page"]
