import json
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback, TrainingArguments

from tests.tiny_models import example, tiny_model
from tests.training.helpers import KillAt, Killed
from vidlada_hf.hub.checksums import write_checksums
from vidlada_hf.modeling.modeling_vidlada import VidLaDAForConditionalGeneration
from vidlada_hf.training import trainer as trainer_module
from vidlada_hf.training.checkpointing import last_checkpoint
from vidlada_hf.training.optimizer import OptimizerOptions
from vidlada_hf.training.trainer import DiffusionTrainer, default_arguments

OPTIONS = OptimizerOptions(tower=1e-3, projector=1e-3, text=3e-3, muon=1e-2)


class Examples(torch.utils.data.Dataset):
    """Four questions about videos of one frame."""

    def __init__(self) -> None:
        model = tiny_model()
        self.examples = [example(model, 1, seed=seed) for seed in range(4)]

    def __len__(self) -> int:
        return 16

    def __getitem__(self, i: int) -> dict:
        inputs = self.examples[i % 4]
        labels = torch.full_like(inputs["input_ids"], -100)
        labels[:, -3:] = inputs["input_ids"][:, -3:]
        return inputs | {"labels": labels}


def join(items: list[dict]) -> dict:
    return {name: torch.cat([item[name] for item in items]) for name in items[0]}


def trainer(folder, callbacks=(), **arguments) -> DiffusionTrainer:
    settings = {
        "max_steps": 12,
        "per_device_train_batch_size": 4,
        "save_steps": 3,
        "logging_steps": 1,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 2,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "seed": 3,
        "data_seed": 3,
    } | arguments
    return DiffusionTrainer(
        model=tiny_model(),
        args=TrainingArguments(str(folder), **settings),
        train_dataset=Examples(),
        data_collator=join,
        callbacks=list(callbacks),
        optimizer_options=OPTIONS,
        time_sampling="stratified",
    )


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_a_killed_run_goes_on_as_if_undisturbed(tmp_path):
    """Float32 on one CPU: not even rounding differs."""
    straight = trainer(tmp_path / "straight")
    straight.train()

    with pytest.raises(Killed):
        trainer(tmp_path / "killed", callbacks=[KillAt(5)]).train()
    checkpoint = last_checkpoint(tmp_path / "killed")
    assert checkpoint.endswith("checkpoint-3")
    resumed = trainer(tmp_path / "killed")
    torch.manual_seed(99)  # whatever the new process drew before
    resumed.train(resume_from_checkpoint=checkpoint)
    assert torch.equal(weights(resumed.model), weights(straight.model))


def test_seconds_are_counted_on_after_a_kill(tmp_path):
    with pytest.raises(Killed):
        trainer(tmp_path, logging_steps=1, callbacks=[KillAt(5)]).train()
    checkpoint = Path(last_checkpoint(tmp_path))
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    state["log_history"][-1]["seconds"] = 1000.0
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    write_checksums(checkpoint)
    resumed = trainer(tmp_path, logging_steps=1)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    seconds = [line["seconds"] for line in resumed.state.log_history[len(state["log_history"]) :]]
    assert seconds and all(1000 <= second < 1100 for second in seconds) and seconds == sorted(seconds)


def test_a_checkpoint_holds_no_pickle(tmp_path):
    trainer(tmp_path, max_steps=4).train()
    files = {path.name for path in (tmp_path / "checkpoint-4").iterdir()}
    assert {"model.safetensors", "optimizer.safetensors", "optimizer.json", "random_0.safetensors"} <= files
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pth", ".pkl", ".ckpt"))]
    VidLaDAForConditionalGeneration.from_pretrained(tmp_path / "checkpoint-3")


def test_it_learns(tmp_path):
    run = trainer(tmp_path, max_steps=60, save_strategy="no")
    run.train()
    losses = [entry["loss"] for entry in run.state.log_history if "loss" in entry]
    assert sum(losses[-8:]) < sum(losses[:8]) / 2


def test_a_run_that_was_killed_at_its_end_is_not_trained_on(tmp_path):
    done = trainer(tmp_path, max_steps=3)  # an epoch has four
    done.train()
    again = trainer(tmp_path, max_steps=3)
    again.train(resume_from_checkpoint=last_checkpoint(tmp_path))
    assert again.state.global_step == 3 and torch.equal(weights(again.model), weights(done.model))


def test_grouping_needs_lengths(tmp_path):
    grouped = trainer(tmp_path, train_sampling_strategy="group_by_length")
    with pytest.raises(ValueError, match="`group_by_length` needs a dataset with `lengths`, which Examples has not"):
        grouped.get_train_dataloader()
    grouped.train_dataset.lengths = list(range(16))
    assert sorted(grouped._get_train_sampler()) == list(range(16))


def test_muon_is_refused_where_matrices_are_cut_up(tmp_path, monkeypatch):
    monkeypatch.setattr(DiffusionTrainer, "is_sharded", True)
    with pytest.raises(ValueError, match="Muon needs whole matrices, which FSDP and DeepSpeed cut up"):
        trainer(tmp_path).create_optimizer()


def test_masks_do_not_depend_on_what_was_drawn_before(tmp_path):
    losses = []
    for seed in (1, 2):
        run = trainer(tmp_path / str(seed), max_steps=2, save_strategy="no")
        run.add_callback(Draw(seed))
        run.train()
        losses.append([entry["loss"] for entry in run.state.log_history if "loss" in entry])
    assert losses[0] == losses[1]


class Draw(TrainerCallback):
    """Moves torch's generator on before the first step."""

    def __init__(self, count: int) -> None:
        self.count = count

    def on_step_begin(self, args, state, control, **kwargs):
        torch.rand(self.count)


@pytest.mark.parametrize(("cores", "processes", "workers"), [(16, 1, 14), (16, 4, 2), (64, 1, 14), (1, 1, 1)])
def test_batches_are_prepared_in_workers_where_a_gpu_waits_for_them(cores, processes, workers, monkeypatch):
    monkeypatch.setattr(trainer_module.torch.cuda, "is_available", lambda: False)
    assert default_arguments()["dataloader_num_workers"] == 0
    monkeypatch.setattr(trainer_module.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(trainer_module, "is_torch_tf32_available", lambda: True)
    monkeypatch.setattr(trainer_module.os, "cpu_count", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    arguments = default_arguments()
    assert arguments["dataloader_num_workers"] == workers and arguments["tf32"] is True
