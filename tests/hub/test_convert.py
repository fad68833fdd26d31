"""An official checkpoint and its conversion are one model, and a conversion that cannot be right does not start."""

import json
import shutil
import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from vidlada_hf import VidLaDAForConditionalGeneration, convert_official_checkpoint
from vidlada_hf.hub import convert as convert_module

from ..golden_model import assert_recorded, find_case


@pytest.fixture(scope="module")
def official(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden checkpoint cut in three shards, with its tokenizer beside it, as the official one is published."""
    folder = tmp_path_factory.mktemp("official")
    for source in (*(golden / "checkpoint").glob("*.json"), *(golden / "tokenizer").iterdir()):
        shutil.copy(source, folder)
    tensors = sorted(load_file(golden / "checkpoint" / "model.safetensors").items())
    weight_map = {}
    for number in range(3):
        name = f"model-{number + 1:05d}-of-00003.safetensors"
        part = dict(tensors[number::3])
        save_file(part, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def converted(official: Path, golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The conversion of `official`."""
    out_dir = tmp_path_factory.mktemp("converted") / "made" / "anew"
    return convert_official_checkpoint(official, out_dir, golden / "siglip-tiny", progress=False)


@pytest.fixture
def copy(official: Path, tmp_path: Path) -> Path:
    """A copy of `official` to spoil."""
    return Path(shutil.copytree(official, tmp_path / "copy"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_it_is_the_same_model(official: Path, converted: Path, golden: Path) -> None:
    tower = json.loads((golden / "siglip-tiny" / "config.json").read_text())
    before = VidLaDAForConditionalGeneration.from_pretrained(official, vision_config=tower)
    after, info = AutoModelForImageTextToText.from_pretrained(converted, output_loading_info=True)
    assert not any(info.values())
    for (name, expected), (_, tensor) in zip(
        sorted(before.state_dict().items()), sorted(after.state_dict().items()), strict=True
    ):
        assert torch.equal(expected, tensor), name
    fields_before, fields_after = before.config.to_dict(), after.config.to_dict()
    for name in ("_name_or_path", "vision_config", "architectures"):
        fields_before.pop(name, None), fields_after.pop(name, None)
    assert fields_before == fields_after
    assert before.generation_config.to_dict() == after.generation_config.to_dict()
    tokenizer, config = AutoTokenizer.from_pretrained(converted), after.config
    named = (tokenizer.image_token_id, tokenizer.video_token_id)
    assert named == (config.image_token_id, config.video_token_id)


def test_recorded_logits_and_ids(converted: Path, golden: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(converted)
    case = find_case(golden, "forward", "text")
    logits = model(input_ids=torch.tensor([case["token_ids"]])).logits[0, case["positions"]]
    assert_recorded(logits, golden, "forward", "text.logits", atol=2e-3)

    case = find_case(golden, "generate", "text_only_gen16_b8_s16")
    ids = torch.tensor([case["input_ids"]])
    answer = model.generate(ids, eos_token_id=[], **case["params"])[0, ids.shape[1] :]
    assert answer.tolist() == case["output_ids"]


def test_the_processor_comes_along(converted: Path, official: Path) -> None:
    processor = AutoProcessor.from_pretrained(converted)
    config = AutoConfig.from_pretrained(converted)
    declared = json.loads((official / "config.json").read_text())
    assert (config.image_token_id, config.video_token_id) == (processor.image_token_id, processor.video_token_id)
    special = ["<|mdm_mask|>", "<|eot_id|>"]
    recorded = AutoTokenizer.from_pretrained(official).convert_tokens_to_ids(special)
    assert processor.tokenizer.convert_tokens_to_ids(special) == recorded
    assert processor.timestamps == "ordinal"
    assert processor.add_time_instruction == declared["add_time_instruction"]
    assert processor.video_processor.force_sample == declared["force_sample"]
    frames = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    chat = [{"role": "user", "content": [{"type": "video", "video": frames}, {"type": "text", "text": "What?"}]}]
    options = {"num_frames": 2, "add_time_instruction": False, "return_tensors": "pt"}
    inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True, processor_kwargs=options)
    model = AutoModelForImageTextToText.from_pretrained(converted)
    assert (inputs["input_ids"] == config.video_token_id).sum() == 2 * model.model.tokens_per_frame
    assert model(**inputs).logits.isfinite().all()


def test_single_file_and_tokenizer_elsewhere(golden: Path, converted: Path, tmp_path: Path) -> None:
    convert_official_checkpoint(
        golden / "checkpoint", tmp_path / "out", golden / "siglip-tiny", golden / "tokenizer", progress=False
    )
    assert not (tmp_path / "out" / "model.safetensors.index.json").exists()
    single = load_file(tmp_path / "out" / "model.safetensors")
    sharded = {k: v for path in converted.glob("*.safetensors") for k, v in load_file(path).items()}
    assert single.keys() == sharded.keys()
    assert all(torch.equal(single[name], sharded[name]) for name in single)


class Killed(BaseException):
    """Stands for a signal."""


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_killed_conversion_continues(
    official: Path, converted: Path, golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    write = convert_module.Shard.convert
    written: list[str] = []

    def die_in_the_middle(shard: convert_module.Shard, target: Path, bar: object) -> None:
        if len(written) == after - 1:
            target.with_name(f".{target.name}.partial").write_bytes(b"half")  # a kill leaves no time to tidy up
            raise Killed
        write(shard, target, bar)
        written.append(target.name)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(convert_module.Shard, "convert", die_in_the_middle)
        convert_official_checkpoint(official, tmp_path, golden / "siglip-tiny", progress=False)
    assert not (tmp_path / "config.json").exists()  # nothing loads it

    def count(shard: convert_module.Shard, target: Path, bar: object) -> None:
        write(shard, target, bar)
        written.append(target.name)

    monkeypatch.setattr(convert_module.Shard, "convert", count)
    convert_official_checkpoint(official, tmp_path, golden / "siglip-tiny", progress=False)
    assert sorted(written) == sorted(set(written)), "a finished shard was written again"
    assert contents(tmp_path) == contents(converted)


def test_a_damaged_shard_of_an_interrupted_conversion_is_written_again(
    official: Path, converted: Path, golden: Path, tmp_path: Path
) -> None:
    for path in converted.glob("*.safetensors"):
        shutil.copy(path, tmp_path)
    victim = tmp_path / "model-00002-of-00003.safetensors"
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.write_bytes(content)
    convert_official_checkpoint(official, tmp_path, golden / "siglip-tiny", progress=False)
    assert contents(tmp_path) == contents(converted)


def test_memory_does_not_grow_with_the_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert_module, "CHUNK_BYTES", 1 << 16)
    save_file({"model.norm.weight": torch.zeros(4 << 20)}, tmp_path / "big.safetensors")
    shard = convert_module.Shard.open(tmp_path / "big.safetensors")
    bar = convert_module.tqdm(disable=True)
    tracemalloc.start()
    shard.convert(tmp_path / "out.safetensors", bar)
    assert shard.is_converted(tmp_path / "out.safetensors")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20 < shard.data_bytes
    assert load_file(tmp_path / "out.safetensors").keys() == {"model.language_model.norm.weight"}


def refuse(source: Path, golden: Path, tmp_path: Path, error: type[Exception], tower: str = "siglip-tiny") -> str:
    """Asserts that the conversion raises before it writes anything; the message."""
    with pytest.raises(error) as caught:
        convert_official_checkpoint(source, tmp_path / "out", golden / tower, progress=False)
    assert not (tmp_path / "out").exists()
    return str(caught.value)


def change_tensors(folder: Path, shard: int, change) -> None:
    """Rewrites one shard of a checkpoint without an index."""
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    path = folder / f"model-{shard:05d}-of-00003.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_every_wrong_tensor_is_listed(copy: Path, golden: Path, tmp_path: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        gone = sorted(name for name in tensors if "layers.2" in name)[:2]
        removed.extend(gone)
        for name in gone:
            del tensors[name]
        reshaped.append(next(name for name in tensors if "layers.1" in name))
        tensors[reshaped[0]] = torch.zeros(3)
        tensors["model.stranger.weight"] = torch.zeros(1)

    removed: list[str] = []
    reshaped: list[str] = []
    change_tensors(copy, 1, change)
    message = refuse(copy, golden, tmp_path, ValueError)
    for name in removed:
        assert convert_module.rename(name) in message
    assert "Missing (2)" in message
    assert "Unexpected (1)" in message and "model.stranger.weight" in message
    assert reshaped[0] in message and "(3,) instead of" in message


def test_a_missing_tower_tensor_is_named(copy: Path, golden: Path, tmp_path: Path) -> None:
    name = "model.vision_tower.vision_tower.vision_model.embeddings.patch_embedding.weight"
    for shard in (1, 2, 3):
        change_tensors(copy, shard, lambda tensors: tensors.pop(name, None))
    assert name in refuse(copy, golden, tmp_path, ValueError)


def test_what_the_tower_config_is_needed_for(official: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--vision-config"):
        convert_official_checkpoint(official, tmp_path / "out", progress=False)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        convert_official_checkpoint(official, tmp_path / "out", tmp_path / "nowhere", progress=False)
    assert not (tmp_path / "out").exists()


def test_tower_config_of_an_image_text_model(official: Path, golden: Path, tmp_path: Path) -> None:
    tower = json.loads((golden / "siglip-tiny" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip", "vision_config": tower}))
    convert_official_checkpoint(official, tmp_path / "out", tmp_path, progress=False)
    assert (
        AutoConfig.from_pretrained(tmp_path / "out").vision_config.num_attention_heads == tower["num_attention_heads"]
    )


def test_pickled_weights_are_not_opened(copy: Path, golden: Path, tmp_path: Path) -> None:
    for path in copy.glob("*.safetensors*"):
        path.unlink()
    (copy / "pytorch_model.bin").write_bytes(b"not even a pickle")
    message = refuse(copy, golden, tmp_path, ValueError)
    assert "pytorch_model.bin" in message and "safetensors" in message


def test_incomplete_folders(copy: Path, golden: Path, tmp_path: Path) -> None:
    victim = copy / "model-00002-of-00003.safetensors"
    content = victim.read_bytes()
    victim.write_bytes(content[:-1])
    assert victim.name in refuse(copy, golden, tmp_path, ValueError)
    victim.unlink()
    assert victim.name in refuse(copy, golden, tmp_path, FileNotFoundError)
    victim.write_bytes(content)
    (copy / "tokenizer.json").unlink()
    assert "--tokenizer" in refuse(copy, golden, tmp_path, FileNotFoundError)
    (copy / "config.json").unlink()
    assert "config.json" in refuse(copy, golden, tmp_path, FileNotFoundError)


def test_another_model(copy: Path, converted: Path, golden: Path, tmp_path: Path) -> None:
    assert "already" in refuse(converted, golden, tmp_path, ValueError)
    (copy / "config.json").write_text('{"model_type": "bert"}')
    assert "bert" in refuse(copy, golden, tmp_path, ValueError)


def test_no_checkpoint_is_overwritten(official: Path, converted: Path, golden: Path, tmp_path: Path) -> None:
    before = contents(converted)
    with pytest.raises(FileExistsError, match="holds a checkpoint"):
        convert_official_checkpoint(official, converted, golden / "siglip-tiny", progress=False)
    assert contents(converted) == before
    (tmp_path / "model-00001-of-00009.safetensors").touch()
    with pytest.raises(FileExistsError, match="00009"):
        convert_official_checkpoint(official, tmp_path, golden / "siglip-tiny", progress=False)


def test_a_full_disk_leaves_nothing_half_written(
    official: Path, golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert_module.os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        convert_official_checkpoint(official, tmp_path, golden / "siglip-tiny", progress=False)
    assert contents(tmp_path) == {}
