import re
import threading
from html import unescape
from pathlib import Path

import pytest

from tests.clips import encode
from vidlada_hf.evaluation.questions import load_questions, score_answer
from vidlada_hf.page.samples import SAMPLE_QUESTIONS, SAMPLE_VIDEO
from vidlada_hf.page.videos import PageModel
from vidlada_hf.page.watching import Wish, show_schedule, watch

WAY = {"cache_strategy": "none", "unmasking": "quota"}
FASTER = {"cache_strategy": "mars", "unmasking": "threshold"}


@pytest.fixture(scope="module")
def model() -> PageModel:
    """The embedded checkpoint."""
    return PageModel(device="cpu", max_seconds=60)


def asked(question: str, **fields) -> Wish:
    return Wish(SAMPLE_VIDEO, question, **{"max_new_tokens": 64, **fields})


def text_of(answer: str) -> str:
    """The words of an answer."""
    (canvas,) = re.findall('<p class="vl-canvas">(.*?)</p>', answer)
    return unescape(re.sub("<.*?>", "", canvas)).strip()


@pytest.mark.parametrize("way", [WAY, FASTER], ids=["exact", "faster"])
@pytest.mark.parametrize("share_video", [False, True], ids=["features", "keys"])
def test_the_samples_are_answered_rightly(model: PageModel, way: dict[str, str], share_video: bool) -> None:
    known = {question.question: question for question in load_questions()}
    # Of the keys of a video that does not see the question, the checkpoint tells four of the caption's five facts.
    for question in SAMPLE_QUESTIONS[1:] if share_video else SAMPLE_QUESTIONS:
        *_, last = watch(model, asked(question, share_video=share_video), [way], threading.Event())
        answer = text_of(last.answers[0])
        assert score_answer(known[question], answer) == 1, (question, answer)


def test_a_view_after_each_step(model: PageModel) -> None:
    first, *steps, last = watch(model, asked(SAMPLE_QUESTIONS[0]), [WAY], threading.Event())
    assert first.answers[0].count("vl-mask") == 64 and first.frames.count("<figure>") == 8
    assert re.findall("<figcaption>(.*?)<", first.frames)[::7] == ["0.0 s", "7.9 s"]
    assert ">1 step " in steps[0].answers[0] and f">{len(steps)} steps " in steps[-1].answers[0]
    new = [view.answers[0].count("vl-new") for view in steps]
    assert set(new) <= {0, 1} and sum(new) > 8  # what is committed behind the answer's end is not seen
    assert "Done." in last.answers[0] and "vl-mask" not in last.answers[0] and "vl-new" not in last.answers[0]


def test_side_by_side(model: PageModel) -> None:
    *_, last = watch(model, asked(SAMPLE_QUESTIONS[0]), [WAY, FASTER], threading.Event())
    exact, faster = last.answers
    assert "none + quota" in exact and "mars + threshold" in faster and text_of(exact) == text_of(faster)
    steps = [int(re.findall(r">(\d+) steps", answer)[0]) for answer in last.answers]
    assert steps[0] > 2 * steps[1]


def test_a_video_is_encoded_once(model: PageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = model.network.get_video_features
    monkeypatch.setattr(model.network, "get_video_features", lambda *a, **k: calls.append(1) or original(*a, **k))
    for question in SAMPLE_QUESTIONS[:3]:
        list(watch(model, asked(question, num_frames=5), [FASTER, WAY], threading.Event()))
    assert len(calls) == 1


def test_stopping(model: PageModel) -> None:
    stop = threading.Event()
    views = watch(model, asked(SAMPLE_QUESTIONS[0], pause=60), [WAY], stop)
    next(views)
    threading.Timer(0.2, stop.set).start()
    after = list(views)  # the pause is left at once
    assert len(after) == 1 and "Stopped." in after[0].answers[0] and "vl-mask" in after[0].answers[0]
    (never_begun,) = watch(model, asked("What?"), [WAY], stop)
    assert "Stopped." in never_begun.answers[0]


def test_what_is_wrong_is_said(model: PageModel, tmp_path: Path) -> None:
    def problem(wish: Wish, way: dict[str, str] = WAY) -> str:
        with pytest.raises(ValueError) as caught:
            list(watch(model, wish, [way], threading.Event()))
        assert str(tmp_path) not in str(caught.value)
        return str(caught.value)

    assert "no video yet" in problem(Wish(None, "What?")) and "no question yet" in problem(asked(" "))
    (tmp_path / "bad.mp4").write_bytes(b"no video" * 99)
    assert "Cannot read the video 'bad.mp4'" in problem(Wish(str(tmp_path / "bad.mp4"), "What?"))
    long = encode(tmp_path / "long.mp4", frames=70, fps=1)
    assert "long.mp4 lasts 70 seconds" in problem(Wish(str(long), "What?"))
    assert "Unknown `unmasking` 'best'" in problem(asked("What?"), {"unmasking": "best"})
    assert "take `cache_strategy='none'`" in problem(asked("What?"), FASTER | {"unmasking": "wino"})


def test_schedule_of_a_strategy() -> None:
    assert show_schedule("mars", 64).count("vl-row") == 8 and ">8 of 64<" in show_schedule("mars", 64)
    assert "vl-row" in show_schedule("dual", 64)
