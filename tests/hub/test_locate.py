"""Names of checkpoints."""

import json
from pathlib import Path

import pytest

from vidlada_hf.hub import locate
from vidlada_hf.modeling.official_checkpoint_vidlada import OFFICIAL_MODEL_TYPE


def test_no_name_is_the_embedded_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locate.find_checkpoint(None) == str(locate.EMBEDDED_CHECKPOINT)
    monkeypatch.setattr(locate, "EMBEDDED_CHECKPOINT", tmp_path)
    with pytest.raises(FileNotFoundError, match="--model"):
        locate.find_checkpoint(None)


def test_folders_and_ids_stand_for_themselves(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vidlada"}))
    for name in (str(tmp_path), "someone/a-model.v2"):
        assert locate.find_checkpoint(name) == name


def test_a_name_that_cannot_load_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in (tmp_path / "none", tmp_path / "file", "a/b/c", "none", "./none", "runs/none", "file/none"):
        with pytest.raises(FileNotFoundError, match="is no folder"):
            locate.find_checkpoint(str(name))
    with pytest.raises(FileNotFoundError, match="holds no config.json"):
        locate.find_checkpoint(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": OFFICIAL_MODEL_TYPE}))
    with pytest.raises(ValueError, match="vidlada convert"):
        locate.find_checkpoint(str(tmp_path))
