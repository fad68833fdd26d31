"""The page in headless Chromium. gradio and Playwright are installed in an environment of its own, Chromium is not.

It writes the pictures of the page in `docs/`.
"""

import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import processes
from tests.clips import encode
from vidlada_hf import EMBEDDED_CHECKPOINT

pytestmark = pytest.mark.nightly

ROOT = Path(__file__).parents[2]
CLIP = EMBEDDED_CHECKPOINT / "demo" / "clip.mp4"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NEEDS = ("gradio>=6,<7", "playwright>=1.50")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of gradio and Playwright, and of nothing else that is here already."""
    if CHROMIUM is None:
        pytest.skip("There is no Chromium: `apt-get install chromium` (Debian) brings it.")
    folder = tmp_path_factory.mktemp("page") / "packages"
    command = [sys.executable, "-m", "pip", "install", "--target", folder, *NEEDS]
    done = processes.run(command, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def address(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where `vidlada page` serves the embedded checkpoint, with uploads of at most 1 MB and half a minute."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    temporary = tmp_path_factory.mktemp("temporary")
    # Behind the packages that are here, so that torch and transformers are those under test.
    code = f"import sys; sys.path.append({str(packages)!r}); from vidlada_hf.cli import app; app()"
    command = [sys.executable, "-c", code, "page", "--port", port, "--max-megabytes", 1, "--max-minutes", 0.5]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)}
    server = processes.start(command, env=environment, cwd=temporary)
    try:
        for _ in range(240):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None, "the page ended before it served"
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/"
    finally:
        processes.end(server)
    assert not list(temporary.glob("vidlada-page-*")), "uploads are left"


@pytest.fixture(scope="module")
def browser(packages: Path) -> Iterator[Any]:
    sys.path.append(str(packages))
    try:
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
    finally:
        sys.path.remove(str(packages))


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Any]:
    """Opens the page as another visitor. Nothing may be fetched from elsewhere, or go wrong in the browser."""
    contexts, problems = [], []

    def opened(viewport: dict[str, int] = DESKTOP, color_scheme: str = "light") -> Any:
        contexts.append(browser.new_context(viewport=viewport, color_scheme=color_scheme))
        tab = contexts[-1].new_page()
        tab.set_default_timeout(60_000)
        tab.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        own = (address, "data:", "blob:")
        tab.on("request", lambda request: None if request.url.startswith(own) else problems.append(request.url))
        tab.goto(address, wait_until="domcontentloaded")  # "networkidle" never comes: a stream stays open
        tab.get_by_role("button", name="Ask", exact=True).wait_for()
        return tab

    yield opened
    for context in contexts:
        context.close()
    refused_upload = re.compile("413|404|^Response$")  # what gradio itself logs where a file is over the limit
    assert not [text for text in problems if not refused_upload.search(text)]


def choose(tab: Any, question: str, pause: float) -> None:
    """Writes the question and how long each step is to be seen."""
    tab.get_by_label("Question").fill(question)
    slider = tab.get_by_label("number input for Pause")
    if not slider.is_visible():
        tab.get_by_role("button", name="Settings").click()
    slider.fill(str(pause))
    slider.press("Tab")
    tab.get_by_role("button", name="Settings").click()


def ask(tab: Any, question: str, pause: float = 0.0, button: str = "Ask") -> None:
    choose(tab, question, pause)
    tab.get_by_role("button", name=button, exact=True).click()


def wait_for_text(locator: Any, text: str | re.Pattern[str]) -> None:
    from playwright.sync_api import expect

    expect(locator).to_contain_text(text, timeout=60_000)


def newest(tab: Any) -> Any:
    return tab.locator("#answers .vl-turn").first


def test_an_uploaded_video_is_asked_about(visit: Any, tmp_path: Path) -> None:
    tab = visit()
    upload(tab, Path(shutil.copy(CLIP, tmp_path / "mine.mp4")))
    ask(tab, "Describe the video.", pause=0.4)
    wait_for_text(newest(tab), re.compile("[3-9] steps"))
    assert newest(tab).locator(".vl-mask").count() > 3 and newest(tab).locator(".vl-new, .vl-known").count() > 0
    wait_for_text(newest(tab), "Done.")
    wait_for_text(newest(tab), "the yellow cross moves down.")
    assert tab.locator("#frames figcaption").all_inner_texts()[::7] == ["0.0 s", "7.9 s"]
    ask(tab, "Which shape appears last?")
    wait_for_text(newest(tab), re.compile("Which shape appears last.*bar.*Done", re.DOTALL))
    assert tab.locator("#answers .vl-turn").count() == 2  # the answer before is still there


def upload(tab: Any, path: Path) -> None:
    tab.locator("#video").get_by_label("Clear").click()
    tab.locator("#video input[type=file]").set_input_files(path)
    tab.locator("#video video").wait_for()


def test_stop_frees_the_model_at_once(visit: Any) -> None:
    tab, another = visit(), visit()
    ask(tab, "Describe the video.", pause=1.0)
    wait_for_text(newest(tab), "2 steps")
    another.get_by_role("button", name="Ask", exact=True).click()
    wait_for_text(another.locator("#answers"), re.compile("queue: 1/1"))
    tab.get_by_role("button", name="Stop", exact=True).click()
    wait_for_text(newest(tab), "Stopped.")
    wait_for_text(newest(another), "Done.")


def test_a_visitor_who_leaves_frees_the_model(visit: Any) -> None:
    tab, another = visit(), visit()
    ask(tab, "Describe the video.", pause=1.0)
    wait_for_text(newest(tab), "1 step")
    tab.close()
    started = time.monotonic()
    another.get_by_role("button", name="Ask", exact=True).click()
    wait_for_text(newest(another), "1 step")
    assert time.monotonic() - started < 10  # of 13 seconds at least that are left


def test_side_by_side(visit: Any) -> None:
    tab = visit()
    tab.get_by_role("tab", name="Side by side").click()
    ask(tab, "Describe the video.", button="Ask both")
    exact, faster = tab.locator("#answer-0"), tab.locator("#answer-1")
    for answer in (exact, faster):
        wait_for_text(answer, "Done.")
        wait_for_text(answer, "the yellow cross moves down.")
    steps = [int(re.findall(r"(\d+) steps", answer.inner_text())[0]) for answer in (exact, faster)]
    assert steps[0] > 2 * steps[1]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("broken.mp4", "Cannot read the video 'broken.mp4'"),
        ("long.mp4", "long.mp4 lasts 60 seconds, and this page takes at most 30: cut it."),
        ("big.mp4", "File(s) exceed the maximum allowed size"),
    ],
)
def test_a_refused_file_is_named(visit: Any, tmp_path: Path, name: str, said: str) -> None:
    tab = visit()
    if name == "long.mp4":
        encode(tmp_path / name, frames=60, fps=1)
    else:
        (tmp_path / name).write_bytes(b"no video" * (99 if name == "broken.mp4" else 1 << 18))
    tab.locator("#video").get_by_label("Clear").click()
    tab.locator("#video input[type=file]").set_input_files(tmp_path / name)
    wait_for_text(tab.locator(".toast-wrap"), said)
    assert str(tmp_path) not in tab.inner_text("body") and "/tmp" not in tab.locator(".toast-wrap").inner_text()
    tab.get_by_role("button", name="Take the sample clip").click()
    tab.get_by_role("button", name="Ask", exact=True).click()
    wait_for_text(newest(tab), "Done.")


def test_explanations_follow_the_menus(visit: Any) -> None:
    tab = visit()
    menu = tab.get_by_role("combobox", name="Cache strategy").first
    menu.click()
    tab.get_by_role("option", name="dual").click()
    wait_for_text(tab.locator("body"), "A block's first step recomputes everything, the others only the block")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", ["desktop", "phone"])
def test_pictures(visit: Any, tmp_path: Path, device: str, scheme: str) -> None:
    """Nothing is wider than the screen. Two of the pictures are those in the documentation."""
    tab = visit(DESKTOP if device == "desktop" else PHONE, scheme)
    shown = {("desktop", "light"): "page.png", ("phone", "dark"): "page_phone.png"}.get((device, scheme))
    if device == "desktop":
        tab.get_by_role("tab", name="Side by side").click()
        ask(tab, "Describe the video.", pause=0.5, button="Ask both")
        wait_for_text(tab.locator("#answer-0"), "5 steps")
    else:
        ask(tab, "Describe the video.", pause=0.7)
        wait_for_text(newest(tab), "7 steps")
    path = ROOT / "docs" / shown if shown else tmp_path / f"{device}_{scheme}.png"
    tab.screenshot(path=path, full_page=True)
    tab.get_by_role("button", name="Stop", exact=True).click()
    for name in ("Watch", "Side by side", "Schedule"):
        tab.get_by_role("tab", name=name).click()
        assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), name
