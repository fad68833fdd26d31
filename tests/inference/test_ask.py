import pytest
import torch

from tests.clips import encode
from tests.tiny_models import build_tiny
from vidlada_hf.inference.ask import ask
from vidlada_hf.processing.video_reading_vidlada import VideoReadingError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A random tiny checkpoint."""
    folder = tmp_path_factory.mktemp("ask") / "tiny"
    for part in build_tiny():
        part.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Three seconds of H.264."""
    return str(encode(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=36, fps=12))


def test_an_answer_says_how_it_was_made(checkpoint, clip):
    answer = ask(clip, "What?", checkpoint, fps=2, max_new_tokens=16, max_denoising_steps=8)
    assert (answer.question, answer.video, answer.model, answer.frames) == ("What?", clip, checkpoint, 6)
    assert answer.settings["max_denoising_steps"] == 8 and answer.seconds > 0 and answer.tokens_per_forward >= 2
    again = ask(clip, "What?", checkpoint, fps=2, max_new_tokens=16, max_denoising_steps=8)
    assert again.answer == answer.answer


def test_a_seed_repeats_an_answer(checkpoint, clip):
    settings = {"num_frames": 2, "max_new_tokens": 8, "temperature": 1.0}
    answers = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(answers))
        answers.append(ask(clip, "What?", checkpoint, seed=seed, **settings).answer)
    assert answers[0] == answers[1] != answers[2]


def test_mistakes_are_found_before_the_weights_are_loaded(checkpoint, clip, monkeypatch):
    monkeypatch.setattr("vidlada_hf.inference.ask.VidLaDAForConditionalGeneration.from_pretrained", None)
    with pytest.raises(ValueError, match="`block_length` .5. does not divide"):
        ask(clip, "What?", checkpoint, max_new_tokens=16, block_length=5)
    with pytest.raises(ValueError, match="missing.mp4"):
        ask("missing.mp4", "What?", checkpoint)
    with pytest.raises(FileNotFoundError, match="no/such/folder is no folder"):
        ask(clip, "What?", "no/such/folder")


def test_an_address_is_fetched_only_if_allowed(checkpoint, clip):
    for options, problem in (({}, "allow_urls=True"), ({"allow_urls": True}, "allow_private_urls=True")):
        with pytest.raises(VideoReadingError, match=problem):
            ask("http://127.0.0.1:1/a.mp4", "What?", checkpoint, **options)
    assert ask(clip, "What?", checkpoint, num_frames=2, max_new_tokens=4, allow_urls=True).frames == 2
