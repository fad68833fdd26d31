from pathlib import Path

import pytest

from tests.tiny_models import write_tiny_checkpoint


def test_convert_then_export(vidlada, golden: Path, tmp_path: Path) -> None:
    convert = ("convert", golden / "checkpoint", tmp_path / "converted", "--tokenizer", golden / "tokenizer")
    code, _, message = vidlada(*convert)
    assert code == 1 and "--vision-config" in message and list(tmp_path.iterdir()) == []
    code, out, _ = vidlada(*convert, "--vision-config", golden / "siglip-tiny")
    assert code == 0 and str(tmp_path / "converted") in out
    code, _, message = vidlada(*convert, "--vision-config", golden / "siglip-tiny")
    assert code == 1 and "holds a checkpoint already" in message

    export = ("export", tmp_path / "converted", tmp_path / "exported", "--name", "a/b", "--base-model", "c/d")
    code, out, _ = vidlada(*export)
    card = (tmp_path / "exported" / "README.md").read_text()
    assert code == 0 and str(tmp_path / "exported") in out and "- c/d\n" in card and "# b\n" in card
    code, _, message = vidlada(*export)
    assert code == 1 and "not an empty folder" in message

    for folder in (tmp_path / "converted", tmp_path / "exported"):
        code, out, _ = vidlada("verify", folder)
        assert code == 0 and "All files" in out
    code, out, _ = vidlada("push", folder, "a/b", "--dry-run")
    assert code == 0 and "model.safetensors" in out and "Nothing was uploaded" in out
    code, _, message = vidlada("push", folder, "a/b/c", "--dry-run")
    assert code == 1 and "'a/b/c' is no id" in message
    (folder / "extra.safetensors").touch()
    shard = next(folder.glob("model*.safetensors"))
    shard.write_bytes(b"")
    code, out, message = vidlada("verify", folder)
    assert code == 1 and "2 files of" in message
    assert out.splitlines() == [f"{shard.name}: is damaged or was changed", "extra.safetensors: is not in SHA256SUMS"]
    code, _, message = vidlada("verify", tmp_path)
    assert code == 1 and "holds no SHA256SUMS" in message
    code, _, message = vidlada("push", tmp_path / "exported", "x", "--dry-run")
    assert code == 1 and "'x' is no id" in message
    for command in (("verify", tmp_path / "mistyped"), ("push", tmp_path / "mistyped", "a/b", "--dry-run")):
        code, _, message = vidlada(*command)
        assert code == 1 and f"{tmp_path / 'mistyped'} is no folder" in message


@pytest.mark.parametrize(("text", "message"), [("[]", "holds no JSON object"), ("{", "is no JSON")])
def test_a_damaged_config_is_named(vidlada, tmp_path: Path, text: str, message: str) -> None:
    folder = write_tiny_checkpoint(tmp_path / "tiny")
    config = folder / "config.json"
    config.write_text(text)
    for command in (
        ("export", folder, tmp_path / "out"),
        ("convert", folder, tmp_path / "out"),
        ("ask", folder, "What?", "--model", folder),
    ):
        code, _, said = vidlada(*command)
        assert code == 1 and f"{config} {message}" in said
