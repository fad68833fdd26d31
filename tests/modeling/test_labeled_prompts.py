"""Answers to training batches: `generate(labels=...)`, as `Seq2SeqTrainer` calls it, and through `peft`."""

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

from vidlada_hf.modeling.labeled_prompts_vidlada import attended_tokens, cut_before_labels
from vidlada_hf.modeling.objective_vidlada import IGNORED

from ..tiny_models import IMAGE, PAD, VIDEO, collate, example, tiny_model

SETTINGS = {"max_new_tokens": 4, "block_length": 4}


def conversations(model) -> list[dict]:
    """Examples of different lengths with an answer at the end, and text without labels behind that of the last."""
    inputs = [example(model, 2, before=1), example(model, 1, after=6, seed=2), example(model, 0, before=9, seed=3)]
    for one, (first, end) in zip(inputs, ((-3, None), (-2, None), (-5, -2)), strict=True):
        one["labels"] = torch.full_like(one["input_ids"], IGNORED)
        one["labels"][:, first:end] = one["input_ids"][:, first:end]
    return inputs


def prompt_of(one: dict) -> dict:
    first = int((one["labels"][0] != IGNORED).nonzero()[0])
    return {name: value for name, value in one.items() if name != "labels"} | {"input_ids": one["input_ids"][:, :first]}


def answer_alone(model, one: dict) -> torch.Tensor:
    prompt = prompt_of(one)
    return model.generate(**prompt, **SETTINGS)[0, prompt["input_ids"].shape[1] :]


def test_each_answer_is_that_of_its_prompt_alone():
    model = tiny_model()
    items = conversations(model)
    answers = model.generate(**collate(items), **SETTINGS)
    assert answers.shape == (3, 4)
    for answer, one in zip(answers, items, strict=True):
        assert torch.equal(answer, answer_alone(model, one))


def test_what_the_labels_are_changes_nothing():
    model = tiny_model()
    inputs = collate(conversations(model))
    expected = model.generate(**inputs, **SETTINGS)
    where = inputs["labels"] != IGNORED
    inputs |= {name: inputs[name].masked_fill(where, 9) for name in ("input_ids", "labels")}
    assert torch.equal(model.generate(**inputs, **SETTINGS), expected)


def test_a_dict_holds_the_answers_too():
    model = tiny_model()
    inputs = collate(conversations(model))
    output = model.generate(**inputs, **SETTINGS, return_dict_in_generate=True)
    assert torch.equal(output.sequences, model.generate(**inputs, **SETTINGS))


def test_padding_is_known_by_either_mask():
    ids = torch.tensor([[0, 5, 6], [7, 8, 9]])
    attended = torch.tensor([[0, 1, 1], [1, 1, 1]])
    causal = (attended[:, None, :] * attended[:, :, None]).tril()[:, None]
    for mask in (attended, causal.bool()):
        assert torch.equal(attended_tokens(ids, mask), attended.bool())
    assert attended_tokens(ids, None).all()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[-100] * 5], "example 0 has no label, so nothing says where its prompt ends: leave `labels` out"),
        ([[3, -100, -100, -100, 4]], "example 0 has a label on its first token.*: label the answer alone"),
        ([[-100, 3, -100, -100, 4]], "example 0 has a video or an image behind its first label: label its last"),
        ([[4]], r"`labels` must have the shape of `input_ids` \(1, 5\), got \(1, 1\)"),
    ],
)
def test_labels_that_leave_no_prompt_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        cut_before_labels(torch.tensor([[3, 3, VIDEO, 3, 4]]), None, torch.tensor(labels), [VIDEO, IMAGE])


def test_predict_with_generate(tmp_path: Path):
    model, seen = tiny_model(), {}

    def metrics(prediction):
        seen["answers"], seen["labels"] = prediction.predictions, prediction.label_ids
        return {"matches": 1.0}

    arguments = Seq2SeqTrainingArguments(
        str(tmp_path),
        predict_with_generate=True,
        per_device_eval_batch_size=2,
        remove_unused_columns=False,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    items = conversations(model)
    trainer = Seq2SeqTrainer(model, arguments, eval_dataset=items, data_collator=collate, compute_metrics=metrics)
    for _ in range(2):  # the trainer writes into the generation config
        scores = trainer.evaluate(**SETTINGS)
    assert scores["eval_matches"] == 1.0 and np.isfinite(scores["eval_loss"])
    for answer, one in zip(seen["answers"], items, strict=True):
        expected = answer_alone(model, one).tolist()
        assert answer[:4].tolist() == expected and set(answer[4:].tolist()) <= {PAD}


@pytest.mark.parametrize("task_type", ["CAUSAL_LM", None])
def test_an_adapter_is_trained_and_answers(task_type):
    model = tiny_model()
    one = conversations(model)[0]
    before = answer_alone(model, one)
    config = LoraConfig(r=4, target_modules="all-linear", task_type=task_type, init_lora_weights=False)
    adapted = get_peft_model(model, config)
    adapted.train()(**one).loss.backward()
    assert all(
        p.grad is not None for name, p in adapted.named_parameters() if "language_model" in name and "lora" in name
    )
    adapted.eval()
    answer = answer_alone(adapted, one)
    assert not torch.equal(answer, before)
    assert torch.equal(answer_alone(adapted.merge_and_unload(), one), answer)


def test_a_learned_prompt_is_refused():
    model = tiny_model()
    model.config.vocab_size = model.config.text_config.vocab_size  # peft looks for it here
    model.config.hidden_size = model.config.text_config.hidden_size
    model.config.num_hidden_layers = model.config.num_attention_heads = 4
    adapted = get_peft_model(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    prompt = {"input_ids": torch.tensor([[3, 4, 5]])}
    with pytest.raises(ValueError, match="does not take prompts that `peft` has learned"):
        adapted.generate(**prompt, **SETTINGS)
    model.generate(**prompt, **SETTINGS)
