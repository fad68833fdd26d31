import json

import pytest
from PIL import Image

from tests.tiny_models import build_tiny
from vidlada_hf.evaluation import demo
from vidlada_hf.evaluation.demo import run_demo
from vidlada_hf.hub.locate import EMBEDDED_CHECKPOINT


def test_the_embedded_checkpoint_answers_the_shipped_questions(tmp_path):
    done = run_demo(tmp_path / "new")
    replies = json.loads((tmp_path / "new" / "answers.json").read_text())
    assert replies == [vars(reply) for reply in done.replies] and len(replies) >= 8
    assert sum(reply["score"] for reply in replies) >= 0.5 * len(replies)
    assert done.model == str(EMBEDDED_CHECKPOINT) and done.video == EMBEDDED_CHECKPOINT / "demo" / "clip.mp4"
    picture = Image.open(done.picture)
    assert picture.size[0] > 1000 and len(picture.convert("RGB").getcolors(1 << 20)) > 100
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["answers.json", "denoising.png"]


def test_another_checkpoint_without_a_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    (model, processor), folder = build_tiny(), tmp_path / "tiny"
    model.generation_config.max_new_tokens = 4
    for part in (model, processor):
        part.save_pretrained(folder)
    done = run_demo(tmp_path / "out", str(folder))
    assert done.model == str(folder) and done.picture is None
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["answers.json"]
    with pytest.raises(FileNotFoundError, match="is no folder"):
        run_demo(tmp_path / "out", "no/such/folder")
