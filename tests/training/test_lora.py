"""An adapter, from its training to a process that has neither this package nor anything else than base and adapter."""

import inspect
import json
import os
import shutil
import sys

import pytest
import torch
from peft import AutoPeftModel
from safetensors.torch import load_file

from tests import processes
from tests.tiny_models import build_tiny, write_tiny_checkpoint
from tests.training.helpers import DATA, losses_of
from vidlada_hf import VidLaDAForConditionalGeneration, export_checkpoint
from vidlada_hf.training import run
from vidlada_hf.training.lora import (
    FINGERPRINT,
    LoraOptions,
    add_adapter,
    base_tensors,
    fingerprint_of,
    is_same_base,
    load_adapter,
    save_adapter,
)
from vidlada_hf.training.model_loading import load_model
from vidlada_hf.training.recipe import Recipe
from vidlada_hf.training.task import find_task

LORA = {"r": 4, "alpha": 8}

# Runs in a fresh process: the adapter on a base, by peft alone.
BY_PEFT = """
import json, sys
base, adapter, is_alone = sys.argv[1:]
if is_alone:
    sys.modules["vidlada_hf"] = None
else:
    import vidlada_hf
import torch
from peft import PeftModel
from transformers import AutoModelForMultimodalLM
torch.set_num_threads(1)
base = AutoModelForMultimodalLM.from_pretrained(base, **({"trust_remote_code": True} if is_alone else {}))
model = PeftModel.from_pretrained(base, adapter).eval()
with torch.no_grad():
    print(json.dumps(model(input_ids=torch.arange(20, 32)[None]).logits[0, :, 0].tolist()))
"""


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(20, 32)[None]).logits[0, :, 0]


def recipe(base, folder, **lora) -> Recipe:
    stage = {
        "name": "adapt",
        "options": {"data": DATA},
        "rates": {"text": 1e-2},
        "lora": LORA | lora,
        "arguments": {"per_device_train_batch_size": 2, "max_steps": 4, "save_steps": 2, "logging_steps": 1}
        | {"report_to": [], "disable_tqdm": True},
    }
    return Recipe.from_dict({"model": str(base), "output_dir": str(folder), "stages": [stage]})


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("base") / "base", seed=3)


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    """The folder of the stage."""
    return run.train(recipe(base, tmp_path_factory.mktemp("run"))).parent


def test_a_new_adapter_changes_nothing_and_trains_nothing_else():
    model = build_tiny()[0]
    before = logits(model)
    adapted = add_adapter(model, LORA)
    torch.testing.assert_close(logits(adapted), before)
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    layers = model.config.text_config.num_hidden_layers
    assert len(trained) == layers * 7 * 2
    assert all(".language_model.layers." in name and ".lora_" in name for name in trained)


def test_training_leaves_the_base_alone(base, trained):
    start, merged = load_file(base / "model.safetensors"), load_file(trained / "model" / "model.safetensors")
    adapted = {name for name in start if not torch.equal(start[name], merged[name])}
    assert adapted and all("language_model.layers" in name and "_proj" in name for name in adapted)
    assert {name: tensor.shape for name, tensor in start.items()} == {n: t.shape for n, t in merged.items()}


def test_training_leaves_the_live_base_alone():
    model, processor = build_tiny()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    task = find_task("conversations")(add_adapter(model, LORA), processor, data=DATA)
    data = task.dataset()
    losses = losses_of(task, task.collate([data[i] for i in range(2)]), steps=3, rate=1e-2)
    assert losses[-1] != losses[0]
    after = base_tensors(task.model)
    assert before.keys() == after.keys() and all(torch.equal(after[name], before[name]) for name in before)


def test_a_checkpoint_holds_only_the_adapter(trained):
    assert all(".lora_" in name for name in load_file(trained / "checkpoint-4" / "model.safetensors"))


def test_alone_and_merged_it_gives_the_same(base, trained):
    clean = VidLaDAForConditionalGeneration.from_pretrained(base)
    before, checksum = logits(clean), {name: tensor.clone() for name, tensor in clean.state_dict().items()}
    adapted = load_adapter(clean, trained / "adapter")
    alone = logits(adapted)
    assert (alone - before).abs().max() > 1e-3
    for name, tensor in base_tensors(adapted).items():
        assert torch.equal(tensor, checksum[name]), name
    merged = load_adapter(VidLaDAForConditionalGeneration.from_pretrained(base), trained / "adapter", merge=True)
    for model in (merged, VidLaDAForConditionalGeneration.from_pretrained(trained / "model")):
        torch.testing.assert_close(logits(model), alone, atol=1e-4, rtol=1e-4)


def test_it_lowers_the_loss(base, trained):
    model, processor = load_model(str(base), 0)
    task = find_task("conversations")(model, processor, seed=5, data=DATA)
    data, losses = task.dataset(), []
    batch = task.collate([data[i] for i in range(8)])
    for weights in (base, trained / "model"):
        torch.manual_seed(0)  # the same masks
        losses.append(VidLaDAForConditionalGeneration.from_pretrained(weights).eval()(**batch).loss.item())
    assert losses[1] < 0.9 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("is_exported", [False, True], ids=["the base as saved", "exported, without the package"])
def test_a_fresh_process_loads_it(base, trained, tmp_path, is_exported):
    folder = export_checkpoint(base, tmp_path / "exported") if is_exported else base
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", BY_PEFT, folder, trained / "adapter", "yes" if is_exported else ""]
    printed = processes.run(command, env=environment, cwd=tmp_path)
    assert printed.returncode == 0, printed.stderr[-3000:]
    adapted = load_adapter(VidLaDAForConditionalGeneration.from_pretrained(base), trained / "adapter")
    torch.testing.assert_close(torch.tensor(json.loads(printed.stdout.splitlines()[-1])), logits(adapted))


def test_peft_finds_the_base_by_itself(base, trained):
    """Which peft does from 0.20 on where this package is allowed, and before that everywhere."""
    is_asked = "import_allowlist" in inspect.signature(AutoPeftModel.from_pretrained).parameters
    allowed = {"import_allowlist": ["vidlada_hf"]} if is_asked else {}
    loaded = AutoPeftModel.from_pretrained(trained / "adapter", **allowed)
    adapted = load_adapter(VidLaDAForConditionalGeneration.from_pretrained(base), trained / "adapter")
    torch.testing.assert_close(logits(loaded), logits(adapted))


def test_an_adapter_for_another_base_is_refused(trained):
    with pytest.raises(ValueError, match="was trained on another base .*: its weights are not those of this model"):
        load_adapter(build_tiny(4)[0], trained / "adapter")


def test_a_damaged_adapter_is_named(base, trained, tmp_path):
    shutil.copytree(trained / "adapter", tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    model = VidLaDAForConditionalGeneration.from_pretrained(base)
    with pytest.raises(ValueError, match="A file of the adapter in .*adapter is damaged"):
        load_adapter(model, file.parent)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no adapter_model\.safetensors"):
        load_adapter(model, file.parent)


def test_a_folder_without_an_adapter_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no adapter_config.json: pass the folder of an adapter"):
        load_adapter(build_tiny()[0], tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_fingerprint_is_the_bases_in_any_type_and_with_an_adapter(dtype):
    known = fingerprint_of(build_tiny()[0].bfloat16())
    assert is_same_base(known, fingerprint_of(add_adapter(build_tiny()[0].to(dtype), LORA)))
    assert not is_same_base(known, fingerprint_of(build_tiny(1)[0].to(dtype)))


def test_an_adapter_is_saved_without_pickle_and_with_its_base(tmp_path):
    model = add_adapter(build_tiny()[0], LORA)
    save_adapter(model, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", FINGERPRINT} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt"))]


def test_resuming_with_another_adapter_is_refused(base, trained):
    with pytest.raises(ValueError, match=r"Stage 'adapt' was begun with other settings \(lora.r: 4 before, 8 now\)"):
        run.train(recipe(base, trained.parent, r=8))


def test_killed_and_resumed_it_ends_with_the_same_adapter(base, trained, tmp_path):
    """As if killed after step 3: the checkpoint of step 2 is there, nothing later."""
    killed = tmp_path / "1-adapt"
    killed.mkdir()
    shutil.copy(trained / "stage.json", killed)
    shutil.copytree(trained / "checkpoint-2", killed / "checkpoint-2")
    resumed = load_file(run.train(recipe(base, tmp_path)).parent / "adapter" / "adapter_model.safetensors")
    for name, tensor in load_file(trained / "adapter" / "adapter_model.safetensors").items():
        assert torch.equal(tensor, resumed[name]), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r": 0}, "`r` of at least 1, .* got r=0"),
        ({"dropout": 1.0}, "`dropout` from 0 to below 1, got .*dropout=1.0"),
        ({"target_modules": "("}, r"`target_modules` is '\(', no regular expression"),
        ({"rank": 8}, "Unknown key `rank` in `lora` of stage 'adapt'"),
    ],
)
def test_impossible_options_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        recipe("base", tmp_path, **options)


def test_no_layer_of_that_name_is_refused():
    with pytest.raises(ValueError, match="nothing_like_it"):
        add_adapter(build_tiny()[0], LoraOptions(target_modules=["nothing_like_it"]))
