"""Stock training tools get the masked objective, an evaluation that repeats, or an error that says why not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from vidlada_hf.modeling.masked_loss_vidlada import fixed_generators
from vidlada_hf.modeling.modeling_vidlada import LONGEST_UNMASKED, VidLaDAForConditionalGeneration, VidLaDAModel
from vidlada_hf.modeling.objective_vidlada import IGNORED, complete_masks
from vidlada_hf.modeling.text_model_vidlada import VidLaDAPreTrainedModel

from ..tiny_models import MASK, collate, example, tiny_model

OTHER_OBJECTIVE = "without a single mask token.*another objective"


def labeled(one: dict, answer: int = 3) -> dict:
    """An example of `tests.tiny_models.example` with labels on its last tokens."""
    labels = torch.full_like(one["input_ids"], IGNORED)
    labels[:, -answer:] = one["input_ids"][:, -answer:]
    return one | {"labels": labels}


def examples(count: int = 5) -> list[dict]:
    model = tiny_model()
    return [labeled(example(model, 1 + i % 2, before=1 + i, seed=i), answer=2 + i % 3) for i in range(count)]


def arguments(folder: Path, **options) -> TrainingArguments:
    defaults = {"max_steps": 1, "per_device_train_batch_size": 2, "save_strategy": "no", "report_to": []}
    return TrainingArguments(
        str(folder), remove_unused_columns=False, use_cpu=True, disable_tqdm=True, **(defaults | options)
    )


def stock_trainer(folder: Path, model: nn.Module | None = None, **options) -> Trainer:
    own = {name: options.pop(name) for name in ("compute_metrics", "compute_loss_func") if name in options}
    data = {"train_dataset": examples(), "eval_dataset": examples(), "data_collator": collate}
    return Trainer(model or tiny_model(), arguments(folder, **options), **data, **own)


# --- a loss of somebody else's ---------------------------------------------------------------------------------------


def shifted_cross_entropy(outputs, labels, num_items_in_batch=None):
    logits, targets = outputs["logits"][..., :-1, :].flatten(0, 1), labels[..., 1:].flatten()
    return nn.functional.cross_entropy(logits, targets)


@pytest.mark.parametrize("option", [{"label_smoothing_factor": 0.1}, {"compute_loss_func": shifted_cross_entropy}])
def test_a_trainer_that_computes_its_own_loss_is_refused_before_a_step(tmp_path, option):
    model = tiny_model()
    before = model.lm_head.weight.clone()
    with pytest.raises(ValueError, match=OTHER_OBJECTIVE):
        stock_trainer(tmp_path, model, **option).train()
    assert torch.equal(model.lm_head.weight, before)


def test_a_loss_from_the_logits_beside_labels_is_refused(tmp_path):
    class Shifted(Trainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            return shifted_cross_entropy({"logits": model(**inputs).logits}, inputs["labels"])

    trainer = Shifted(tiny_model(), arguments(tmp_path), train_dataset=examples(), data_collator=collate)
    with pytest.raises(AttributeError, match="returns no `logits`: .*another objective"):
        trainer.train()


def test_logits_beside_labels_are_refused_by_their_key():
    outputs = tiny_model().train()(**examples(1)[0])
    for take in (outputs.get, outputs.__getitem__):
        with pytest.raises(KeyError, match="returns no `logits`: .*another objective"):
            take("logits")
    assert outputs.get("loss") is outputs["loss"] is outputs[0] and outputs.get("other", 3) == 3


def test_a_head_that_others_apply_is_refused():
    """TRL calls the body of a causal model, and applies the head itself."""
    model = tiny_model().train()
    with pytest.raises(ValueError, match=OTHER_OBJECTIVE):
        model.base_model(**example(model, 1), use_cache=False)


def test_a_count_of_tokens_is_refused():
    with pytest.raises(ValueError, match="a mean over examples, which `num_items_in_batch` cannot scale"):
        tiny_model().train()(**examples(1)[0], num_items_in_batch=torch.tensor(3))


def test_packed_conversations_are_refused():
    model, (one,) = tiny_model().train(), examples(1)
    length = one["labels"].shape[1]
    positions = torch.cat([torch.arange(4), torch.arange(length - 4)])[None]
    with pytest.raises(ValueError, match="several conversations are packed into it.*packing=False"):
        model(**one, position_ids=positions)
    apart = torch.block_diag(torch.ones(4, 4), torch.ones(length - 4, length - 4)).bool()[None, None]
    model(**one, position_ids=positions, attention_mask=apart)
    padded = collate(examples(2))
    counted = padded["attention_mask"].cumsum(-1) - 1
    model(**padded, position_ids=counted.masked_fill(padded["attention_mask"] == 0, 1))


def test_inference_needs_no_masks():
    model = tiny_model()
    inputs = example(model, 1)
    model(**inputs)  # eval mode, with gradients
    with torch.no_grad():
        model.train()(**inputs)
        model.base_model(**inputs, use_cache=False)


def test_masks_of_the_callers_own_need_no_labels():
    model = tiny_model().train()
    inputs = example(model, 1)
    ids = inputs["input_ids"].clone()
    ids[:, -2:] = MASK
    for _ in range(2):
        model(**inputs | {"input_ids": ids}).logits.sum().backward()
    model(**inputs)  # whoever masks may draw no mask for a batch


def test_masks_seen_once_do_not_switch_the_check_off(tmp_path):
    model = tiny_model().train()
    inputs = example(model, 1)
    model(torch.full_like(inputs["input_ids"], MASK), use_cache=False)
    with pytest.raises(ValueError, match=OTHER_OBJECTIVE):
        stock_trainer(tmp_path, model, label_smoothing_factor=0.1).train()


def test_masks_seen_often_allow_some_batches_without():
    model = tiny_model().train()
    ids = example(model, 0)["input_ids"]
    for _ in range(3 * LONGEST_UNMASKED):
        model(torch.full_like(ids, MASK))
    for _ in range(LONGEST_UNMASKED - 1):
        model(ids)
    with pytest.raises(ValueError, match=OTHER_OBJECTIVE):
        model(ids)


@pytest.mark.parametrize("part", ["config", "text_config"])
def test_a_config_does_not_switch_the_check_off(tmp_path, part):
    model = tiny_model()
    (model.config if part == "config" else model.config.text_config).output_hidden_states = True
    with pytest.raises(ValueError, match=OTHER_OBJECTIVE):
        stock_trainer(tmp_path, model, label_smoothing_factor=0.1).train()


class RewardModel(VidLaDAPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.model = VidLaDAModel(config)
        self.score = nn.Linear(config.text_config.hidden_size, 1)
        self.post_init()

    def forward(self, **inputs):
        return self.score(self.model(**inputs).last_hidden_state[:, -1])


class RewardOnTop(VidLaDAForConditionalGeneration):
    def forward(self, **inputs):
        return self.model(**inputs).last_hidden_state[:, -1].mean(-1)


@pytest.mark.parametrize("kind", [RewardModel, RewardOnTop])
def test_reward_heads_are_trained(kind):
    model = kind(tiny_model().config).train()
    model(**example(tiny_model(), 1), use_cache=False).sum().backward()


def test_features_are_trained_on():
    model = tiny_model().train()
    model.model(**example(model, 1)).last_hidden_state.sum().backward()
    model(**example(model, 1), output_hidden_states=True).hidden_states[-1].sum().backward()


# --- embeddings, labels -----------------------------------------------------------------------------------------------


def test_noise_on_embeddings_is_trained_with(tmp_path):
    """`neftune_noise_alpha` hooks the embeddings, and expects ids (batch, tokens) there."""
    stock_trainer(tmp_path, neftune_noise_alpha=5.0).train()


def test_masks_are_embedded_where_they_stand():
    model, (one,) = tiny_model(), examples(1)
    seen, shape = [], one["labels"].shape
    model.get_input_embeddings().register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    model(**one)
    model(inputs_embeds=torch.randn(*shape, model.config.text_config.hidden_size), labels=one["labels"])
    assert set(seen) == {shape}


def test_labels_may_be_int32():
    model, (one,) = tiny_model(), examples(1)
    with torch.no_grad():
        assert model(**one | {"labels": one["labels"].int()}).loss == model(**one).loss


def test_an_example_longer_than_the_model_is_refused():
    (one,) = examples(1)
    length = one["labels"].shape[1]
    limits = {at: tiny_model(text_config={"max_position_embeddings": at}) for at in (length - 1, length)}
    limits[length](**one)
    with pytest.raises(ValueError, match=f"Example 0 takes {length} tokens, and the model has {length - 1} positions"):
        limits[length - 1](**one)


# --- evaluation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 5])
def test_an_evaluation_repeats_whatever_the_batches(tmp_path, size):
    trainer = stock_trainer(tmp_path, per_device_eval_batch_size=size)
    losses = [trainer.evaluate()["eval_loss"] for _ in range(2)]
    state = torch.get_rng_state()
    with torch.no_grad():
        alone = [trainer.model(**one).loss for one in trainer.eval_dataset]
    assert losses[0] == losses[1] == pytest.approx(torch.stack(alone).mean().item(), rel=1e-5)
    assert torch.equal(torch.get_rng_state(), state), "an evaluation in between would change what training draws"


@torch.no_grad()
def test_examples_that_differ_have_masks_that_differ(monkeypatch):
    """Also where only the video does. Those of an example are its own draws of t and of tokens."""
    model, drawn = tiny_model(), []
    monkeypatch.setattr(
        "vidlada_hf.modeling.masked_loss_vidlada.diffusion_loss",
        lambda logits, labels, masked, probabilities, weights: drawn.append(probabilities) or logits.sum(),
    )
    one = labeled(example(model, 2))
    other_video = one | {"pixel_values_videos": one["pixel_values_videos"].flip(0)}
    ids = one["input_ids"].clone()
    ids[:, 0] = (ids[:, 0] - 2) % 50 + 3
    for each in (one, other_video, one | {"input_ids": ids}, one):
        model(**each)
    first, second, third, again = torch.cat(drawn)
    assert first == again and len({first.item(), second.item(), third.item()}) == 3


@torch.no_grad()
def test_the_rates_of_an_evaluation_are_uniform():
    labels = torch.arange(4000)[:, None] + torch.arange(3)
    generators = fixed_generators(labels)
    _, rates = complete_masks(labels, generator=generators)
    assert rates.mean().item() == pytest.approx(0.5, abs=0.02) and rates.var().item() == pytest.approx(1 / 12, abs=0.01)


def test_masks_vary_where_gradients_are_wanted():
    """A loop of somebody's own may forget `train()`: then each pass must still draw masks anew."""
    model, one = tiny_model(), labeled(example(tiny_model(), 1), 4)
    assert len({model(**one).loss.item() for _ in range(4)}) > 1


def test_predictions_are_ids_at_labeled_positions(tmp_path):
    seen = {}

    def metrics(prediction):
        seen["predictions"], seen["labels"] = prediction.predictions, prediction.label_ids
        return {"accuracy": 1.0}

    trainer = stock_trainer(tmp_path, compute_metrics=metrics, per_device_eval_batch_size=2)
    assert trainer.evaluate()["eval_accuracy"] == 1.0
    predictions, labels = seen["predictions"], seen["labels"]
    assert predictions.shape == labels.shape and np.issubdtype(predictions.dtype, np.integer)
    assert ((predictions == IGNORED) == (labels == IGNORED)).all()


@torch.no_grad()
def test_predictions_do_not_see_the_answer():
    model, one = tiny_model(), labeled(example(tiny_model(), 1))
    ids, answered = one["input_ids"].clone(), one["labels"] != IGNORED
    ids[answered] = MASK
    expected = model(**one | {"input_ids": ids, "labels": None}).logits.argmax(-1)[answered]
    other = {"input_ids": one["input_ids"].masked_fill(answered, 7), "labels": one["labels"].masked_fill(answered, 7)}
    for each in (one, one | other):
        assert torch.equal(model(**each).predictions[answered], expected)


def test_the_best_model_is_loaded_at_the_end(tmp_path):
    options = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 1, "save_steps": 1, "max_steps": 4}
    # A rate this high makes things worse before it makes them better.
    trainer = stock_trainer(tmp_path, learning_rate=0.05, load_best_model_at_end=True, **options)
    trainer.train()
    history = {line["step"]: line["eval_loss"] for line in trainer.state.log_history if "eval_loss" in line}
    assert trainer.state.best_metric == min(history.values()) < max(history.values())
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(history.values()), rel=1e-6)
