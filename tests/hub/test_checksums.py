"""Checksums of folders, also as stock tools write and check them."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from vidlada_hf.hub.checksums import CHECKSUMS, find_damage, find_extra, write_checksums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with its checksums."""
    (tmp_path / "states").mkdir()
    (tmp_path / "model.safetensors").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "states" / "rank 0.pt").write_bytes(b"1")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text("card")
    (tmp_path / ".gitattributes").write_text("hidden")
    write_checksums(tmp_path)
    return tmp_path


def test_a_whole_folder_has_no_damage(folder: Path) -> None:
    assert find_damage(folder) == [] and find_extra(folder) == []
    lines = (folder / CHECKSUMS).read_text().splitlines()
    assert lines[0] == f"{hashlib.sha256(b'{}').hexdigest()}  config.json"
    assert [line[66:] for line in lines] == ["config.json", "model.safetensors", "states/rank 0.pt"]
    (folder / "README.md").write_text("another card")
    assert find_damage(folder) == []
    assert [path.name for path in folder.glob(".*")] == [".gitattributes"]


def test_what_is_damaged_missing_or_extra_is_named(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 99 + bytes(256))
    assert find_damage(folder) == ["model.safetensors: is damaged or was changed"]
    for name in (
        "model-00001-of-00002.safetensors",
        "notes.txt",
        "states/more.pt",
        ".hidden.json",
        "vocab.txt",
        "merges.txt",
    ):
        (folder / name).touch()
    assert find_extra(folder) == [
        f"{name}: is not in SHA256SUMS"
        for name in ("merges.txt", "model-00001-of-00002.safetensors", "states/more.pt", "vocab.txt")
    ]
    (folder / "config.json").unlink()
    assert find_damage(folder) == ["config.json: is missing"]


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_stock_tools_check_it_and_write_it(folder: Path) -> None:
    subprocess.run(["sha256sum", "--quiet", "-c", CHECKSUMS], cwd=folder, check=True)
    for option in ("--text", "--binary"):
        subprocess.run(f"sha256sum {option} ./*.* states/* > {CHECKSUMS}", cwd=folder, check=True, shell=True)
        assert find_damage(folder) == []
    (folder / "states" / "rank 0.pt").write_bytes(b"2")
    assert find_damage(folder) == ["states/rank 0.pt: is damaged or was changed"]


@pytest.mark.parametrize("text", ["", "abc  config.json", "0" * 64, f"{'0' * 64}  ../config.json", f"{'0' * 64}  /etc"])
def test_damaged_checksums_are_refused(folder: Path, text: str) -> None:
    (folder / CHECKSUMS).write_text(text)
    with pytest.raises(ValueError, match="copy the folder again"):
        find_damage(folder)


def test_a_folder_without_checksums_is_refused_with_the_remedy(folder: Path) -> None:
    (folder / CHECKSUMS).unlink()
    with pytest.raises(FileNotFoundError, match=r"sha256sum \* > SHA256SUMS"):
        find_damage(folder)


def test_what_is_no_folder_is_said_to_be_none(folder: Path) -> None:
    for path in (folder / "mistyped", folder / "config.json"):
        with pytest.raises(FileNotFoundError, match=f"{path} is no folder: pass the folder of a checkpoint"):
            find_damage(path)


def test_known_digests_are_not_computed_again(folder: Path) -> None:
    """So a file that was damaged between its writing and its listing is found."""
    digest = hashlib.sha256(b"as it was meant").hexdigest()
    write_checksums(folder, {"model.safetensors": digest})
    assert find_damage(folder) == ["model.safetensors: is damaged or was changed"]
