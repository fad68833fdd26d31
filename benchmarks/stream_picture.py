"""The animated picture at the top of the README: what `vidlada ask --stream` shows in a terminal.

    python benchmarks/stream_picture.py [--output docs/stream.webp]

The command itself is run, with a screen (pyte's) in place of stdout that keeps each draft. Beside it are eight frames
of the clip, a second each; each draft is held long enough to be read. The question is the demo's last one, a caption; a
wrong answer is not drawn. To be run again when the embedded checkpoint has new weights.
"""

import argparse
import contextlib
import io
import os
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pyte
from PIL import Image, ImageDraw, ImageFont

from vidlada_hf import EMBEDDED_CHECKPOINT, read_video
from vidlada_hf.cli import app
from vidlada_hf.evaluation.questions import is_right, load_questions
from vidlada_hf.processing.video_processing_vidlada import sample_frame_indices

CLIP = EMBEDDED_CHECKPOINT / "demo" / "clip.mp4"
QUESTION = load_questions()[-1]
PROMPT = "$ "
COLUMNS, LINES = 64, 9  # of the screen
TICK = 125  # milliseconds
LETTERS = 4  # typed in a tick
FRAME, DRAFTS, END = 8, 32, 24  # ticks that each frame, all drafts together, and the answer are held

WIDTH, HEIGHT, MARGIN = 1180, 310, 20  # pixels, 1.4 times those that a README shows
FONT = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSansMono.ttf", 22)
COLORS = {"default": "#e6edf3", "brown": "#f0b72f"}  # pyte's names; brown is what a terminal shows as yellow
BACKGROUND, QUALITY = "#0d1117", 60

Screen = list[list[tuple[str, str]]]  # the letters of each line, with their colors


class Terminal(io.TextIOBase):
    """A terminal in place of stdout.

    Args:
        states: the screens that were kept: all with a draft on them, and those that `keep` was called for.
    """

    def __init__(self) -> None:
        self.states: list[Screen] = []
        self._screen = pyte.Screen(COLUMNS, LINES)
        self._screen.set_mode(pyte.modes.LNM)  # a new line begins at its left
        self._stream, self._has_draft = pyte.Stream(self._screen), False

    def isatty(self) -> bool:
        """True: drafts are shown, and in color."""
        return True

    def write(self, text: str) -> int:
        """Shows a text, whose escape codes are obeyed."""
        self._stream.feed(text)
        if text:  # `print` writes its `end` too, even where it is empty
            self._has_draft = text.endswith("\033[0m")
        return len(text)

    def flush(self) -> None:
        """Keeps a draft. What else is flushed on the way, nobody sees: the next text follows at once."""
        if self._has_draft:
            self.keep()

    def keep(self) -> None:
        """Keeps the screen as it is now."""
        lines = (self._screen.buffer[line] for line in range(LINES))
        self.states.append([[(line[x].data, line[x].fg) for x in range(COLUMNS)] for line in lines])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "docs" / "stream.webp")
    output = parser.parse_args(arguments).output
    typed, shown = record(QUESTION.question)
    answer = answer_on(shown[-1])
    if not is_right(QUESTION, answer):
        raise SystemExit(f"The embedded checkpoint answers {QUESTION.question!r} wrong: {answer!r}.")
    frames, _ = read_video(CLIP, lambda video: sample_frame_indices(video.total_num_frames, num_frames=8).tolist())
    save(draw(typed, shown, frames), output)
    print(f"{output}: {len(shown)} states, {output.stat().st_size / 1000:.0f} kB")


def record(question: str) -> tuple[list[Screen], list[Screen]]:
    """The screens while the command is typed, and those after each step, the last with the answer."""
    terminal, command = Terminal(), f'vidlada ask {CLIP.name} "{question}" --frames 8 --stream'
    terminal.write(PROMPT)
    for start in range(0, len(command), LETTERS):
        terminal.write(command[start : start + LETTERS])
        terminal.keep()
    typed, terminal.states = terminal.states, []
    terminal.write("\n")
    with working_directory(CLIP.parent), contextlib.redirect_stdout(terminal):
        app(["ask", CLIP.name, question, "--frames", "8", "--stream"], standalone_mode=False)
    terminal.write(PROMPT)
    terminal.keep()
    return typed, terminal.states


@contextlib.contextmanager
def working_directory(folder: Path):
    """Python 3.10 has no `contextlib.chdir`."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def answer_on(screen: Screen) -> str:
    """What stands between the command and the next prompt."""
    text = "".join(letter for line in screen for letter, _ in line)
    return text.partition("--stream")[2].strip().removesuffix(PROMPT.strip()).strip()


def draw(typed: Sequence[Screen], shown: Sequence[Screen], frames: np.ndarray) -> list[Image.Image]:
    """The picture of each tick.

    Args:
        typed, shown: as `record` returns them.
        frames: of the clip, uint8 (frames, height, width, 3). The last one stays.
    """
    *drafts, answer = map(draw_screen, shown)
    ticks = [draw_screen(screen) for screen in typed]
    ticks += [draft for draft in drafts for _ in range(max(2, DRAFTS // len(drafts)))]
    ticks += [answer] * max(END, FRAME * len(frames) - len(ticks))
    return [with_frame(picture, frames[min(tick // FRAME, len(frames) - 1)]) for tick, picture in enumerate(ticks)]


def draw_screen(screen: Screen) -> Image.Image:
    """The terminal at the right; the left is free for the clip."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), BACKGROUND)
    pen, letter, line = ImageDraw.Draw(picture), FONT.getlength("M"), (HEIGHT - 2 * MARGIN) / LINES
    left = WIDTH - MARGIN - COLUMNS * letter
    for row, letters in enumerate(screen):
        for column, (text, color) in enumerate(letters):
            if text != " ":
                pen.text((round(left + column * letter), round(MARGIN + row * line)), text, COLORS[color], FONT)
    return picture


def with_frame(picture: Image.Image, frame: np.ndarray) -> Image.Image:
    """The picture with a frame of the clip in it."""
    side, whole = HEIGHT - 2 * MARGIN, picture.copy()
    whole.paste(Image.fromarray(frame).resize((side, side)), (MARGIN, MARGIN))
    return whole


def save(pictures: Sequence[Image.Image], path: Path) -> None:
    """As a WebP file that goes on for ever: it takes a fraction of a GIF's bytes, for the clip is not flat."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = pictures
    first.save(path, save_all=True, append_images=rest, duration=TICK, loop=0, quality=QUALITY)


if __name__ == "__main__":
    main()
