"""TRL's trainers: refused where they compute a loss of their own, and trained with the model's own where told to.

TRL is installed beside the packages that run the tests, in an environment of its own.
"""

import sys
from pathlib import Path

import pytest

from tests import processes

pytestmark = pytest.mark.nightly

ROOT = Path(__file__).parents[2]
TRL = "trl==1.16.0"
BEGIN = """
import sys
import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import Trainer
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from vidlada_hf import EMBEDDED_CHECKPOINT, VidLaDAForConditionalGeneration, VidLaDAProcessor
from vidlada_hf.training.data.collator import DiffusionCollator

model = VidLaDAForConditionalGeneration.from_pretrained(EMBEDDED_CHECKPOINT)
processor = VidLaDAProcessor.from_pretrained(EMBEDDED_CHECKPOINT)
tokenizer = processor.tokenizer
lora = LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear")
options = {"output_dir": "run", "max_steps": 2, "per_device_train_batch_size": 2, "report_to": [], "use_cpu": True}
options |= {"save_strategy": "no", "bf16": False, "logging_steps": 1}
turn = lambda role, text: {"role": role, "content": text}
chats = Dataset.from_list([{"messages": [turn("user", "Who is it?"), turn("assistant", "A red circle.")]}] * 4)


class MaskedSFTTrainer(SFTTrainer):
    compute_loss, prediction_step = Trainer.compute_loss, Trainer.prediction_step
"""
OWN_LOSS = {
    "sft": "SFTTrainer(model, SFTConfig(**options), train_dataset=chats, processing_class=tokenizer).train()",
    "sft with an adapter": (
        "SFTTrainer(model, SFTConfig(**options), train_dataset=chats, processing_class=tokenizer, peft_config=lora)"
        ".train()"
    ),
    "label smoothing": (
        "SFTTrainer(model, SFTConfig(**options, label_smoothing_factor=0.1), train_dataset=chats, "
        "processing_class=tokenizer).train()"
    ),
    "dft": (
        "SFTTrainer(model, SFTConfig(**options, loss_type='dft'), train_dataset=chats, processing_class=tokenizer)"
        ".train()"
    ),
    "dpo": """
pairs = {"prompt": [turn("user", "Who?")], "chosen": [turn("assistant", "me")], "rejected": [turn("assistant", "you")]}
DPOTrainer(
    model, args=DPOConfig(**options), train_dataset=Dataset.from_list([pairs] * 4), processing_class=tokenizer,
    peft_config=lora,
).train()
""",
}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds TRL and sees the packages of this one."""
    folder = tmp_path_factory.mktemp("trl")
    processes.run([sys.executable, "-m", "venv", folder], timeout=600)
    (packages,) = folder.glob("lib/python*/site-packages")
    seen = [path for path in sys.path if path.endswith("-packages")]
    (packages / "seen.pth").write_text("\n".join([str(ROOT / "src"), *seen]))
    done = processes.run([folder / "bin" / "python", "-m", "pip", "install", "--no-deps", TRL], timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "bin" / "python"


def run(python: Path, folder: Path, script: str):
    return processes.run([python, "-c", BEGIN + script], timeout=1800, cwd=folder)


@pytest.mark.parametrize("script", OWN_LOSS.values(), ids=OWN_LOSS)
def test_a_loss_of_its_own_is_refused(python: Path, tmp_path: Path, script: str) -> None:
    done = run(python, tmp_path, script)
    assert done.returncode != 0 and "ValueError: In training, `input_ids` came without `labels`" in done.stderr


TRAIN = """
trainer = MaskedSFTTrainer(
    model, SFTConfig(**options, assistant_only_loss=True), train_dataset=chats, eval_dataset=chats,
    processing_class=tokenizer, peft_config=ADAPTER,
)
trainer.train()
first, second = (trainer.evaluate()["eval_loss"] for _ in range(2))
assert np.isfinite(first) and first == second
(batch,) = trainer.get_eval_dataloader()
with torch.no_grad():
    assert abs(trainer.model(**batch).loss.item() - first) < 1e-4
"""


@pytest.mark.parametrize("adapter", ["None", "lora"])
def test_the_models_own_loss_is_trained(python: Path, tmp_path: Path, adapter: str) -> None:
    done = run(python, tmp_path, TRAIN.replace("ADAPTER", adapter))
    assert done.returncode == 0, done.stderr[-3000:]


def test_packing_is_refused(python: Path, tmp_path: Path) -> None:
    done = run(python, tmp_path, TRAIN.replace("ADAPTER", "None").replace("assistant_only_loss", "packing"))
    assert done.returncode != 0 and "several conversations are packed" in done.stderr


def test_text_is_trained_on_through_the_processor(python: Path, tmp_path: Path) -> None:
    """A control token that a record spells out stays text."""
    script = """
typed = {"messages": [turn("user", "What is <|eot_id|>?"), turn("assistant", "A <|mdm_mask|> or <video>.")]}
trainer = MaskedSFTTrainer(
    model, SFTConfig(**options, remove_unused_columns=False, dataset_kwargs={"skip_prepare_dataset": True}),
    train_dataset=Dataset.from_list([typed] * 4), data_collator=DiffusionCollator(processor, {"text_only": True}),
    processing_class=processor,
)
batch = next(iter(trainer.get_train_dataloader()))
ends = tokenizer.convert_tokens_to_ids("<|eot_id|>")
assert (batch["input_ids"] == ends).sum() == 2 * len(batch["input_ids"])
assert not (batch["input_ids"] == model.config.mask_token_id).any()
trainer.train()
assert np.isfinite([line["loss"] for line in trainer.state.log_history if "loss" in line]).all()
"""
    done = run(python, tmp_path, script)
    assert done.returncode == 0, done.stderr[-3000:]


def test_videos_are_trained_on(python: Path, tmp_path: Path) -> None:
    script = """
class Videos(DiffusionCollator):
    def __call__(self, examples):
        return super().__call__([self.chat(example["seed"]) for example in examples])

    def chat(self, seed):
        clip = np.random.default_rng(seed).integers(0, 255, (2 + seed, 64, 64, 3), dtype=np.uint8)
        parts = [{"type": "video", "video": clip}, {"type": "text", "text": "How many?"}]
        return {"messages": [turn("user", parts), turn("assistant", "two")]}


trainer = MaskedSFTTrainer(
    model, SFTConfig(**options, remove_unused_columns=False, dataset_kwargs={"skip_prepare_dataset": True}),
    train_dataset=Dataset.from_list([{"seed": seed} for seed in range(4)]), data_collator=Videos(processor),
    processing_class=processor,
)
trainer.train()
assert np.isfinite([line["loss"] for line in trainer.state.log_history if "loss" in line]).all()
"""
    done = run(python, tmp_path, script)
    assert done.returncode == 0, done.stderr[-3000:]
