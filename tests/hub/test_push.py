"""Uploads, with the Hub replaced."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from tests.tiny_models import write_tiny_checkpoint
from vidlada_hf import export_checkpoint
from vidlada_hf.hub import push
from vidlada_hf.hub.checksums import CHECKSUMS


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("push")
    return export_checkpoint(write_tiny_checkpoint(root / "tiny"), root / "exported")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What the Hub was asked for."""
    asked: list[tuple[str, dict[str, Any]]] = []

    class Api:
        def create_repo(self, repo_id: str, **options: Any) -> None:
            asked.append(("create_repo", {"repo_id": repo_id, **options}))

        def upload_folder(self, **options: Any) -> None:
            asked.append(("upload_folder", options))

    monkeypatch.setattr(push, "HfApi", Api)
    return asked


def test_all_of_a_checkpoint_is_uploaded_and_nothing_else(exported: Path, calls: list, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "folder"))
    (folder / "notes.txt").touch()
    upload = push.push_checkpoint(folder, "someone/tiny", private=True)
    names = {path.name for path in exported.iterdir()}
    assert upload.files == {name: (exported / name).stat().st_size for name in names}
    (created, made), (uploaded, sent) = calls
    assert (created, uploaded) == ("create_repo", "upload_folder")
    assert made == {"repo_id": "someone/tiny", "private": True, "exist_ok": True}
    assert sent["repo_id"] == "someone/tiny" and set(sent["allow_patterns"]) == names


def test_a_dry_run_asks_nobody(exported: Path, calls: list) -> None:
    upload = push.push_checkpoint(exported, "someone/tiny", dry_run=True)
    assert {"model.safetensors", "README.md", CHECKSUMS} <= upload.files.keys() and not calls


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("model.safetensors", "model.safetensors: is damaged"),
        ("card", "cannot be read"),
        ("no license", "lack license"),
        ("model-index", "cannot be read"),
        ("no card", "does not exist"),
        ("no checksums", "holds no SHA256SUMS"),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_what_is_not_right_is_refused(
    exported: Path, calls: list, tmp_path: Path, damage: str, message: str, dry_run: bool
) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "folder"))
    card = (folder / "README.md").read_text()
    if damage == "model.safetensors":
        (folder / damage).write_bytes(b"")
    elif damage == "card":
        (folder / "README.md").write_text(card.replace("license: apache-2.0", "license: [apache-2.0"))
    elif damage == "no license":
        (folder / "README.md").write_text(card.replace("license: apache-2.0\n", ""))
    elif damage == "model-index":
        (folder / "README.md").write_text(card.replace("license:", "model-index: [{}]\nlicense:"))
    else:
        (folder / ("README.md" if damage == "no card" else CHECKSUMS)).unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        push.push_checkpoint(folder, "someone/tiny", dry_run=dry_run)
    assert not calls


@pytest.mark.parametrize("repo_id", ["a/b/c", "someone/", "sp ace/x", "", "x"])
def test_impossible_ids_are_refused(exported: Path, calls: list, repo_id: str) -> None:
    with pytest.raises(ValueError, match="is no id of a repository"):
        push.push_checkpoint(exported, repo_id, dry_run=True)
    assert not calls


def write_results(path: Path) -> Path:
    """As `vidlada bench` leaves it: one set-up is done, one is not."""
    setup = {"questions": 200, "questions_digest": "0123456789abcdef", "frames": 8, "dtype": "float32"}
    done = {"summary": {"accuracy": {"color": {"accuracy": 0.5}, "all": {"accuracy": 0.875}}}}
    path.write_text(json.dumps({"setup": setup, "results": {"exact": done, "mars": {"ids": []}}}))
    return path


@pytest.mark.parametrize("dataset", [None, "moving shapes"])
def test_the_card_names_what_was_measured(exported: Path, tmp_path: Path, dataset: str | None) -> None:
    results = write_results(tmp_path / "bench.json")
    folder = export_checkpoint(exported, tmp_path / "out", name="a/tiny", results=results, dataset=dataset)
    (result,) = ModelCard.load(folder / "README.md").data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", 87.5)
    assert result.metric_name == "accuracy, exact decoding (8 frames, float32)"
    assert result.dataset_name == (dataset or "200 questions (0123456789abcdef)")
    assert "model-index:\n- name: tiny\n" in (folder / "README.md").read_text()
    push.push_checkpoint(folder, "a/tiny", dry_run=True)


@pytest.mark.parametrize("text", ["", "[]", '{"setup": {}, "results": {}}', "unfinished"])
def test_a_file_without_results_is_refused(exported: Path, tmp_path: Path, text: str) -> None:
    results = write_results(tmp_path / "bench.json")
    if text == "unfinished":
        text = results.read_text().replace('"summary"', '"nothing"')
    results.write_text(text)
    with pytest.raises(ValueError, match="bench.json (is no file of `vidlada bench`|holds no accuracies yet)"):
        export_checkpoint(exported, tmp_path / "out", results=results)
    assert not (tmp_path / "out").exists()


def test_the_card_is_read_back_by_huggingface_hub(exported: Path) -> None:
    card = ModelCard.load(exported / "README.md")
    assert str(ModelCard(str(card))) == str(card) and card.data.library_name == "transformers"
