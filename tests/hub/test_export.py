"""An exported folder is complete: it loads, answers and re-saves in a process that cannot import this package."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoProcessor, pipeline

import vidlada_hf  # noqa: F401  # registers
from tests.tiny_models import tiny_config, tiny_model, write_tiny_checkpoint
from tests.without_package import QUESTION, REMOTE_CLASSES, VIDEO, answer_of, run_without_package
from vidlada_hf import export_checkpoint, modeling, processing
from vidlada_hf.hub.checksums import find_damage, find_extra

# What a process without the package makes of an export: it loads, answers, and saves it again.
USE = """
report = {}
exported, scratch = arguments
report["exported"] = load(exported)
pipe = pipeline("video-text-to-text", model=exported, **trust)
mars = {"anchors": 1, "visual_intervals": [4, 2], "text_intervals": [2, 1]}
settings = {"max_new_tokens": 8, "cache_strategy": "mars", "cache_config": mars}
report["mars"] = pipe(video, text=question, **settings)[0]["generated_text"]
AutoModelForMultimodalLM.from_pretrained(exported, **trust).save_pretrained(scratch + "/resaved")
AutoProcessor.from_pretrained(exported, **trust).save_pretrained(scratch + "/resaved")
report["resaved"] = load(scratch + "/resaved")
pipe.save_pretrained(scratch + "/pipe")
report["pipe"] = load(scratch + "/pipe")

messages = [{"role": "user", "content": [{"type": "video", "video": video}, {"type": "text", "text": question}]}]
model, processor = (auto.from_pretrained(exported, **trust) for auto in (AutoModel, AutoProcessor))
inputs = processor.apply_chat_template(
    messages, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
)
sequences = model.generate(**inputs, max_new_tokens=8)
report["step by step"] = processor.decode(sequences[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True).strip()
for task in ("image-text-to-text", "any-to-any"):
    built_in = pipeline(task, model=exported, **trust)
    options = {"return_full_text": False, "generate_kwargs": {"max_new_tokens": 8}}
    report[task] = [type(built_in).__name__, built_in(text=messages, **options)[0]["generated_text"].strip()]
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tiny checkpoint in the package's format."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("hub") / "tiny")


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> Path:
    """Its export."""
    return export_checkpoint(checkpoint, checkpoint.parent / "out" / "exported", name="someone/tiny-vidlada")


@pytest.fixture(scope="module")
def answer(checkpoint: Path) -> str:
    """What the package itself answers."""
    return answer_of(checkpoint)


@pytest.fixture(scope="module")
def report(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What a process without the package makes of the folder."""
    scratch = tmp_path_factory.mktemp("without")
    return run_without_package(USE, scratch, exported, scratch)


@pytest.mark.parametrize("folder", ["exported", "resaved", "pipe"])
def test_it_loads_without_the_package(report: dict, answer: str, folder: str) -> None:
    assert report[folder]["classes"] == REMOTE_CLASSES
    assert report[folder]["info"] == []
    assert report[folder]["answer"] == answer


def test_a_cache_strategy_works_without_the_package(report: dict, checkpoint: Path) -> None:
    mars = {"anchors": 1, "visual_intervals": [4, 2], "text_intervals": [2, 1]}
    settings = {"max_new_tokens": 8, "cache_strategy": "mars", "cache_config": mars}
    pipe = pipeline("video-text-to-text", model=str(checkpoint))
    assert report["mars"] == pipe(VIDEO, text=QUESTION, **settings)[0]["generated_text"]


@pytest.mark.parametrize(
    ("task", "name"), [("image-text-to-text", "ImageTextToTextPipeline"), ("any-to-any", "AnyToAnyPipeline")]
)
def test_built_in_pipelines_answer_the_same(report: dict, answer: str, task: str, name: str) -> None:
    assert report[task] == [name, answer]


def test_auto_model_answers_without_the_package(report: dict, answer: str) -> None:
    assert report["step by step"] == answer


@pytest.mark.parametrize("trust", [{}, {"trust_remote_code": True}], ids=["plain", "trusted"])
@pytest.mark.parametrize("which", ["checkpoint", "exported"])
def test_with_the_package_its_own_classes_load(
    request: pytest.FixtureRequest, answer: str, which: str, trust: dict
) -> None:
    folder = str(request.getfixturevalue(which))
    assert type(AutoProcessor.from_pretrained(folder, **trust)) is vidlada_hf.VidLaDAProcessor
    for auto in (AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM):
        assert type(auto.from_pretrained(folder, **trust)) is vidlada_hf.VidLaDAForConditionalGeneration
    pipe = pipeline("video-text-to-text", model=folder, **trust)
    assert type(pipe) is vidlada_hf.VideoTextToTextPipeline
    assert pipe(VIDEO, text=QUESTION, max_new_tokens=8)[0]["generated_text"] == answer


def test_only_the_checkpoint_goes_along(checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    crowded = Path(shutil.copytree(checkpoint, tmp_path / "crowded"))
    (crowded / "demo").mkdir()
    for name in ("demo/clip.mp4", "heads.safetensors", "notes.txt", "optimizer.pt"):
        (crowded / name).write_bytes(b"not the model's")
    again = export_checkpoint(crowded, tmp_path / "out")
    assert {path.name for path in again.iterdir()} == {path.name for path in exported.iterdir()}


def test_weights_are_the_same_and_independent(checkpoint: Path, exported: Path) -> None:
    before, after = (load_file(folder / "model.safetensors") for folder in (checkpoint, exported))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert not (checkpoint / "model.safetensors").samefile(exported / "model.safetensors")


def test_code_is_complete_and_flat(exported: Path) -> None:
    expected = {path.name for package in (modeling, processing) for path in Path(package.__path__[0]).glob("*.py")} - {
        "__init__.py"
    }
    assert {path.name for path in exported.glob("*.py")} == expected
    assert not [path for path in exported.iterdir() if path.is_dir()]
    assert not [path.name for path in exported.glob("*.py") if "import vidlada_hf" in path.read_text()]


def test_model_card_says_what_it_is(checkpoint: Path, exported: Path) -> None:
    card = ModelCard.load(exported / "README.md")
    data = card.data.to_dict()
    assert (data["library_name"], data["pipeline_tag"], data["license"]) == (
        "transformers",
        "video-text-to-text",
        "apache-2.0",
    )
    assert "base_model" not in data  # nothing official went into random weights
    assert "# tiny-vidlada\n" in card.text and 'model="someone/tiny-vidlada"' in card.text
    assert "at most 8 a video, 1 a second" in card.text and "56 x 56 pixels" in card.text
    assert "{{" not in card.content and "{%" not in card.content

    again = export_checkpoint(checkpoint, checkpoint.parent / "with-bases", base_models=["a/b", "c/d"], license="mit")
    card = ModelCard.load(again / "README.md")
    assert (card.data.base_model, card.data.license) == (["a/b", "c/d"], "mit")
    assert "[a/b](https://huggingface.co/a/b) and [c/d]" in card.text


def test_impossible_exports_write_nothing(checkpoint: Path, exported: Path, golden: Path, tmp_path: Path) -> None:
    out_dir = tmp_path / "out"
    with pytest.raises(ValueError, match="vidlada convert"):
        export_checkpoint(golden / "checkpoint", out_dir)
    with pytest.raises(FileNotFoundError, match="config.json"):
        export_checkpoint(tmp_path, out_dir)
    with pytest.raises(FileExistsError, match="not an empty folder"):
        export_checkpoint(checkpoint, exported)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text((checkpoint / "config.json").read_text())
    with pytest.raises(FileNotFoundError, match="processor.save_pretrained"):
        export_checkpoint(bare, out_dir)
    (bare / "processor_config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="safetensors"):
        export_checkpoint(bare, out_dir)
    assert [path.name for path in tmp_path.iterdir()] == ["bare"]


def test_what_a_killed_export_left_is_removed(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / ".out.partial" / "folder").mkdir(parents=True)
    (tmp_path / ".out.partial" / "stale.safetensors").touch()
    exported = export_checkpoint(checkpoint, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [exported] and not (exported / "stale.safetensors").exists()
    assert find_damage(exported) == find_extra(exported) == []


def test_a_failure_leaves_nothing_behind(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("vidlada_hf.hub.export.fill_model_card", fail)
    with pytest.raises(OSError, match="No space"):
        export_checkpoint(checkpoint, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def sharded(checkpoint: Path) -> Path:
    """The checkpoint in several files."""
    folder = checkpoint.parent / "sharded"
    AutoModelForImageTextToText.from_pretrained(checkpoint).save_pretrained(folder, max_shard_size="100KB")
    AutoProcessor.from_pretrained(checkpoint).save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def test_sharded_weights_come_along_with_their_index(checkpoint: Path, sharded: Path, tmp_path: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    exported = export_checkpoint(sharded, tmp_path / "exported")
    again, info = AutoModelForImageTextToText.from_pretrained(exported, output_loading_info=True)
    assert not any(info.values())
    before, after = model.state_dict(), again.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    parameters = sum(tensor.numel() for tensor in before.values())
    assert f"{parameters / 1000:.3g} thousand" in (exported / "README.md").read_text()


@pytest.mark.parametrize("damage", ["a shard", "its place in the index", "the index", "no JSON", "no weight_map"])
def test_incomplete_shards_are_refused(sharded: Path, tmp_path: Path, damage: str) -> None:
    folder = Path(shutil.copytree(sharded, tmp_path / "folder"))
    index = folder / "model.safetensors.index.json"
    second = sorted(folder.glob("model-00002-of-*.safetensors"))[0].name
    if damage == "a shard":
        (folder / second).unlink()
    elif damage == "its place in the index":
        fields = json.loads(index.read_text())
        fields["weight_map"] = {name: file for name, file in fields["weight_map"].items() if file != second}
        index.write_text(json.dumps(fields))
    elif damage == "the index":
        index.unlink()
    else:
        index.write_text("{" if damage == "no JSON" else "[]")
    message = {
        "a shard": f"{folder} lacks {second}, which",
        "its place in the index": f"{folder} lacks .* tensors",
        "the index": f"{folder} holds no model.safetensors.index.json",
    }
    with pytest.raises((ValueError, FileNotFoundError), match=message.get(damage, f"{index} is no index of weights")):
        export_checkpoint(folder, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("text_config", {"num_hidden_layers": 3}, "holds 9 tensors that its config.json has no place for"),
        ("text_config", {"num_hidden_layers": 5}, "lacks 9 tensors"),
        ("vision_config", {"num_hidden_layers": 1}, "has no place for"),
        ("text_config", {"intermediate_size": 64}, r"mlp.down_proj.weight: \(32, 48\) instead of \(32, 64\)"),
    ],
)
def test_weights_of_another_config_are_refused(
    checkpoint: Path, tmp_path: Path, part: str, change: dict, message: str
) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "folder"))
    fields = json.loads((folder / "config.json").read_text())
    fields[part].update(change)
    (folder / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=f"The checkpoint {folder} .*{message}"):
        export_checkpoint(folder, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [folder]


def test_the_model_without_a_head_and_tied_ones_are_exported(tmp_path: Path) -> None:
    """What loading takes, export takes."""
    model = tiny_model()
    for name, saved in {"bare": model.model, "tied": type(model)(tiny_config(tie_word_embeddings=True))}.items():
        folder = write_tiny_checkpoint(tmp_path / name)
        saved.save_pretrained(folder)
        assert "lm_head.weight" not in load_file(folder / "model.safetensors")
        assert find_damage(export_checkpoint(folder, tmp_path / f"{name} out")) == []


@pytest.mark.parametrize("damage", ["shorter", "longer"])
def test_damaged_weights_are_refused(checkpoint: Path, tmp_path: Path, damage: str) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "folder"))
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-1] if damage == "shorter" else whole + b"x")
    with pytest.raises(ValueError, match="model.safetensors is damaged or cut short"):
        export_checkpoint(folder, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [folder]


def test_what_its_own_checksums_find_damaged_is_refused(exported: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "folder"))
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match="model.safetensors: is damaged or was changed.*remove SHA256SUMS if you"):
        export_checkpoint(folder, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [folder]
    (folder / "SHA256SUMS").unlink()
    export_checkpoint(folder, tmp_path / "out")
