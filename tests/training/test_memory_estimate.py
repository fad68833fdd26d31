import pytest
import torch
import yaml

from tests.tiny_models import build_tiny, write_tiny_checkpoint
from tests.training.helpers import DATA, HEADS_TASK, TINY
from vidlada_hf.cli import app
from vidlada_hf.modeling.modeling_vidlada import VidLaDAForConditionalGeneration
from vidlada_hf.training.conversation_task import ConversationTask
from vidlada_hf.training.memory_estimate import GIB, BatchSize, StagePlan, build_skeleton, describe, plan
from vidlada_hf.training.recipe import Recipe

ARGUMENTS = {"per_device_train_batch_size": 2, "max_steps": 1}


def planned(model=TINY, options=None, **stage) -> StagePlan:
    """One stage's plan."""
    given = {"name": "one", "options": options or {"data": DATA}, "arguments": ARGUMENTS} | stage
    return plan(Recipe.from_dict({"model": str(model), "output_dir": "x", "stages": [given]}))[0]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


def test_parameters_are_counted_without_loading_them(checkpoint, monkeypatch):
    monkeypatch.setattr(
        VidLaDAForConditionalGeneration, "from_pretrained", lambda *_, **__: pytest.fail("loaded the weights")
    )
    for start in (TINY, checkpoint):
        assert all(p.is_meta for p in build_skeleton(str(start))[0].parameters())
    model = build_tiny()[0]
    estimate = planned(checkpoint, rates={"tower": 0, "muon": 1e-3})
    assert sum(count for count, _ in estimate.parts.values()) == sum(p.numel() for p in model.parameters())
    tower = sum(p.numel() for p in model.model.vision_tower.parameters())
    assert estimate.parts["tower"] == (tower, 0)
    assert estimate.parts["text"][0] == estimate.parts["text"][1] > 0


def test_the_first_batch_is_measured(checkpoint):
    estimate = planned(checkpoint)
    assert estimate.batch.examples == 2 and estimate.batch.frames == 4 and not estimate.is_bound
    task = ConversationTask(*build_tiny(), data=DATA)
    batch = task.collate([task.dataset()[i] for i in range(2)])
    assert estimate.batch.tokens == batch["input_ids"].numel()
    assert estimate.batch.labels == (batch["labels"] >= 0).sum() > 0


def test_a_limit_is_taken_instead_so_that_no_data_are_needed():
    options = {
        "data": {"source": "llava", "path": "nowhere.yaml"},
        "labels": {"max_length": 200},
        "processor_options": {"num_frames": 4},
    }
    estimate = planned(options=options)
    frame = build_tiny()[0].model.tokens_per_frame
    assert estimate.is_bound and estimate.batch == BatchSize(2, tokens=400, frames=8, labels=2 * (200 - 4 * frame))
    with pytest.raises(FileNotFoundError, match="nowhere.yaml"):
        planned(options=options | {"labels": "answers"})


def test_the_state_takes_what_it_takes_in_training():
    """Weights, gradients and optimizer state, compared with a real step."""
    from vidlada_hf.training.optimizer import OptimizerOptions, build_optimizer

    rates = {"tower": 0, "muon": 1e-3}
    model = build_tiny()[0]
    optimizer = build_optimizer(model, OptimizerOptions(**rates))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    memory = planned(rates=rates).memory
    assert memory["weights"] == sum(p.nbytes for p in model.parameters())
    assert memory["gradients"] == sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    states = sum(v.nbytes for state in optimizer.state.values() for v in state.values() if v.dim())
    assert memory["optimizer"] == states


def test_text_activations_are_what_autograd_saves():
    """Within a third, counted by a hook on every saved tensor that is no parameter."""
    model = build_tiny()[0].train()
    text, tokens = model.model.language_model, 600
    owned = {p.data_ptr() for p in model.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in owned:
            saved[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = text(inputs_embeds=torch.randn(1, tokens, text.config.hidden_size, requires_grad=True)).last_hidden_state
    estimate = planned(options={"data": DATA, "labels": {"max_length": tokens // 2}}).memory["text activations"]
    assert 0.67 < estimate / sum(saved.values()) < 1.5
    del out


def test_checkpointing_and_adapters_save_memory():
    usual = planned()
    checkpointed = planned(arguments=ARGUMENTS | {"gradient_checkpointing": True})
    assert checkpointed.memory["text activations"] < usual.memory["text activations"] / 3
    adapted = planned(lora={"r": 1})
    assert adapted.parts["adapter"][0] == adapted.parts["adapter"][1] > 0 and adapted.parts["text"][1] == 0
    assert adapted.memory["gradients"] < usual.memory["gradients"] / 10


def test_the_text_says_whether_it_fits_alone_and_sharded():
    one = StagePlan("big", {"text": (8, 8)}, memory={"weights": 40 * GIB, "optimizer": 80 * GIB, "logits": 4 * GIB})
    one.batch, one.accumulation = BatchSize(examples=2, tokens=500, frames=16, labels=20), 8
    text = describe([one], processes=4, available=80 * GIB)
    assert "a process's batch: 2 examples, 500 tokens (20 labeled), 16 frames; a step of all processes: 16,000" in text
    assert "each process: 124.00 GiB, does NOT fit into 80.0 GiB" in text
    assert "sharded over 4 processes: 34.00 GiB, fits into 80.0 GiB" in text


def test_several_processes_hold_their_gradients_twice_unless_they_are_sharded():
    one = StagePlan("some", {"text": (8, 8)}, memory={"weights": 8 * GIB, "gradients": 4 * GIB})
    assert one.total() == 12 * GIB and one.total(2) == 16 * GIB and one.total(2, is_sharded=True) == 6 * GIB


def test_other_tasks_are_counted_without_their_batches():
    text = describe([planned(task=HEADS_TASK, options={"frames": 8}, rates={"text": 0})], available=GIB)
    assert "without activations and heads" in text and "fits into 1.0 GiB" in text


def test_the_command_tells_and_trains_nothing(tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    stage = {"name": "one", "options": {"data": DATA}, "arguments": ARGUMENTS, "lora": {"r": 4}}
    recipe.write_text(yaml.safe_dump({"model": TINY, "output_dir": str(tmp_path / "run"), "stages": [stage]}))
    app(["train", str(recipe), "--dry-run", "--processes", "2", "--device-memory", "2"], standalone_mode=False)
    printed = capsys.readouterr().out
    assert "adapter" in printed and "sharded over 2 processes" in printed and "fits into 2.0 GiB" in printed
    assert not (tmp_path / "run").exists()
