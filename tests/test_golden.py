"""The selection of recorded numbers in the repository: small, without text, and equal to the full recording."""

import json
from hashlib import sha256

import pytest
import torch
from safetensors.torch import load_file

from .golden import SELECTION
from .golden.make_selection import select
from .golden_model import find_case, load_json

FILES = sorted(
    path.relative_to(SELECTION)
    for folder in ("cases", "checkpoint", "siglip-tiny", "tokenizer")
    for path in (SELECTION / folder).iterdir()
)


def test_it_is_small():
    assert sum((SELECTION / path).stat().st_size for path in FILES) < 3_000_000


def test_files_are_those_of_the_manifest():
    recorded = json.loads((SELECTION / "manifest.json").read_text())["files"]
    assert recorded == {str(path): sha256((SELECTION / path).read_bytes()).hexdigest() for path in FILES}


def test_no_sentence_is_in_it():
    """Neither in the recorded cases nor in the tokenizer's files, beside what the random model says."""

    def check(item: object, key: str = "") -> None:
        if isinstance(item, dict):
            for name, value in item.items():
                check(value, name)
        elif isinstance(item, list):
            for value in item:
                check(value, key)
        elif key not in {"result", "merges"}:
            assert not (isinstance(item, str) and any(c.isspace() for c in item)), (key, item)

    for path in FILES:
        if path.suffix == ".json":
            content = json.loads((SELECTION / path).read_text())
            assert "chat_template" not in content
            check(content)


def test_texts_are_decoded():
    case = find_case(SELECTION, "generate", "suffix_gen16_b16_s16")
    assert case["params"]["generation_suffix"] == "The answer is B"
    assert not any("text_as_ids" in case for case in load_json(SELECTION, "prompts"))


def test_it_is_what_the_full_recording_gives(recording, tmp_path):
    manifest = sha256((recording / "manifest.json").read_bytes()).hexdigest()
    if manifest != json.loads((SELECTION / "manifest.json").read_text())["recording"]:
        pytest.skip("VIDLADA_GOLDEN is another recording than the one that the selection was made of")
    select(recording, tmp_path)
    for path in FILES:
        if path.suffix == ".safetensors":
            again, committed = load_file(tmp_path / path), load_file(SELECTION / path)
            assert again.keys() == committed.keys()
            assert all(torch.equal(again[name], committed[name]) for name in again), path
        else:
            assert (tmp_path / path).read_text() == (SELECTION / path).read_text(), path
