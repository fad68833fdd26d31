"""What stock `save_pretrained`, `push_to_hub`, Trainer and peft leave loads in a process without this package."""

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModel, AutoProcessor, Trainer, TrainingArguments
from transformers.utils import hub

import vidlada_hf  # noqa: F401  # registers
from tests.tiny_models import build_tiny, write_tiny_checkpoint
from tests.without_package import REMOTE_CLASSES, answer_of, run_without_package
from vidlada_hf import VidLaDAConfig, VidLaDAForConditionalGeneration, VidLaDAProcessor, VidLaDATextModel
from vidlada_hf.modeling import modeling_vidlada, remote_code_vidlada
from vidlada_hf.processing import processing_vidlada

WHOLE = ["saved", "merged", "pushed", "over_older"]  # folders of a model and a processor

# Parts of a checkpoint saved by themselves; models saved again; and the package imported after the remote code was.
USE = """
folders, scratch = arguments
report = {name: load(f"{folders}/{name}") for name in ("merged", "pushed")}
report["config"] = describe(AutoConfig.from_pretrained(f"{folders}/config", **trust))
report["text"] = describe(AutoModel.from_pretrained(f"{folders}/text", **trust))
report["processor"] = describe(AutoProcessor.from_pretrained(f"{folders}/processor", **trust))
report["video_processor"] = describe(AutoVideoProcessor.from_pretrained(f"{folders}/video_processor", **trust))

folder = folders + "/saved"
for again in ("once", "twice"):
    pipe = pipeline("video-text-to-text", model=folder, **trust)
    folder = f"{scratch}/{again}"
    pipe.model.save_pretrained(folder)
    pipe.processor.save_pretrained(folder)
report["twice"] = load(folder)

remote = AutoModel.from_pretrained(folder, **trust)
sys.meta_path.pop(0)
import vidlada_hf
local = AutoModel.from_pretrained(folder)
report["local"] = [type(local) is vidlada_hf.VidLaDAForConditionalGeneration, type(remote) is not type(local)]
ids = torch.arange(4)[None]
report["same logits"] = torch.equal(remote(ids).logits, local(ids).logits)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each way to save."""
    root = tmp_path_factory.mktemp("folders")
    write_tiny_checkpoint(root / "saved")

    model, processor = build_tiny()
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    arguments = TrainingArguments(str(root / "merged"), report_to=[], use_cpu=True)
    Trainer(adapted.merge_and_unload(), arguments, processing_class=processor).save_model()

    model, _ = build_tiny()
    with pytest.MonkeyPatch.context() as patch:
        replace_hub(patch, root / "pushed")
        model.push_to_hub("someone/tiny")
        processor.save_pretrained(str(root / "uploaded"), push_to_hub=True, repo_id="someone/tiny")

    shutil.copytree(root / "saved", root / "over_older")
    for module in (root / "over_older").glob("*.py"):
        module.write_text("raise RuntimeError('older code')\n")
    write_tiny_checkpoint(root / "over_older")

    model.config.save_pretrained(root / "config")
    model.model.language_model.save_pretrained(root / "text")
    processor.save_pretrained(root / "processor")
    processor.video_processor.save_pretrained(root / "video_processor")
    return root


def replace_hub(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Lets `push_to_hub` upload into a folder."""

    class FakeApi:
        def create_repo(self, repo_id: str, **_: Any) -> Any:
            folder.mkdir(exist_ok=True)
            return type("Repo", (), {"repo_id": repo_id})

        def create_commit(self, repo_id: str, operations: list[Any], **_: Any) -> None:
            for operation in operations:
                shutil.copy(operation.path_or_fileobj, folder / operation.path_in_repo)

    card = type("Card", (), {"save": lambda self, path: Path(path).write_text("card")})
    patch.setattr(hub, "create_and_tag_model_card", lambda *_, **__: card())
    patch.setattr(hub, "_hf_api", FakeApi())


@pytest.fixture(scope="module")
def report(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What a process without the package makes of them."""
    scratch = tmp_path_factory.mktemp("without")
    return run_without_package(USE, scratch, folders, scratch)


@pytest.mark.parametrize("name", ["merged", "pushed", "twice"])
def test_a_folder_loads_without_the_package(report: dict, folders: Path, name: str) -> None:
    there = folders / ("saved" if name == "twice" else name)
    assert report[name]["classes"] == REMOTE_CLASSES
    assert report[name]["info"] == []
    assert report[name]["answer"] == answer_of(there)
    settings = VidLaDAForConditionalGeneration.from_pretrained(there).generation_config.to_dict()
    assert report[name]["generation_config"] == ["transformers_modules", "VidLaDAGenerationConfig", settings]


def test_parts_load_without_the_package(report: dict) -> None:
    names = {
        "config": "VidLaDAConfig",
        "text": "VidLaDATextModel",
        "processor": "VidLaDAProcessor",
        "video_processor": "VidLaDAVideoProcessor",
    }
    assert {name: report[name] for name in names} == {
        name: ["transformers_modules", value] for name, value in names.items()
    }


def test_the_package_may_be_imported_after_its_remote_code(report: dict) -> None:
    assert report["local"] == [True, True]
    assert report["same logits"]


@pytest.mark.parametrize("name", WHOLE)
def test_the_code_is_the_packages(folders: Path, name: str) -> None:
    packages = (Path(module.__file__).parent for module in (modeling_vidlada, processing_vidlada))
    code = {file.name: file.read_bytes() for package in packages for file in package.glob("*_vidlada.py")}
    assert {file.name: file.read_bytes() for file in (folders / name).glob("*.py")} == code


def test_saving_changes_no_object(tmp_path: Path) -> None:
    model, processor = build_tiny()
    before = copy.deepcopy((model.config.to_dict(), processor.to_dict(), processor.image_processor.to_dict()))
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    model.config.architectures, model.config.dtype = None, before[0]["dtype"]  # transformers' own
    before[0]["architectures"] = None
    assert (model.config.to_dict(), processor.to_dict(), processor.image_processor.to_dict()) == before
    assert not hasattr(VidLaDAConfig.from_pretrained(tmp_path), "auto_map")
    again = VidLaDAProcessor.from_pretrained(tmp_path)
    assert again.to_dict() == processor.to_dict()


def test_a_json_file_of_another_name_brings_no_code(tmp_path: Path) -> None:
    model, processor = build_tiny()
    for part in (model.config, model.config.text_config, processor, processor.video_processor):
        part.to_json_file(tmp_path / "mine.json")
    assert [file.name for file in tmp_path.iterdir()] == ["mine.json"]


def test_an_adapters_folder_holds_no_code(tmp_path: Path) -> None:
    model, _ = build_tiny()
    get_peft_model(model, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path)
    assert (tmp_path / "adapter_model.safetensors").is_file() and not list(tmp_path.glob("*.py"))


def test_a_class_of_ones_own_keeps_its_entry(tmp_path: Path) -> None:
    model, _ = build_tiny()
    model.config.auto_map = {"AutoModelForSequenceClassification": "mine.Reward"}
    model.save_pretrained(tmp_path)
    assert VidLaDAConfig.from_pretrained(tmp_path).auto_map == {"AutoModelForSequenceClassification": "mine.Reward"}
    assert type(AutoModel.from_pretrained(tmp_path)) is VidLaDAForConditionalGeneration


def test_the_package_asks_for_no_trust(folders: Path) -> None:
    assert type(AutoConfig.from_pretrained(folders / "config")) is VidLaDAConfig
    assert type(AutoModel.from_pretrained(folders / "text")) is VidLaDATextModel
    assert type(AutoProcessor.from_pretrained(folders / "processor")) is VidLaDAProcessor


def test_under_fsdp2_the_code_is_ours(tmp_path: Path) -> None:
    """FSDP2 gives the model a class that is defined in torch, and transformers would copy a file of torch."""
    model, _ = build_tiny()
    model.__class__ = type("FSDPVidLaDAForConditionalGeneration", (type(model),), {"__module__": "torch.nn"})
    model.save_pretrained(tmp_path)
    config = remote_code_vidlada.with_model_code(model.config, tmp_path / "config.json")
    assert config.auto_map == remote_code_vidlada.AUTO_MAPS["vidlada"]
    assert {file.name for file in tmp_path.glob("*.py")} == {
        file.name for file in Path(remote_code_vidlada.__file__).parent.glob("*_vidlada.py")
    }
    assert torch.equal(
        AutoModel.from_pretrained(tmp_path).lm_head.weight,
        model.lm_head.weight,
    )
