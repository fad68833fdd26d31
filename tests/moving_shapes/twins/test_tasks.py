import pytest
import torch

from moving_shapes.train.packed_qa import PackedQATask
from moving_shapes.train.packing import packed_attention_mask
from moving_shapes.train.tiny_model import build_tiny
from moving_shapes.twins.models import as_llama
from moving_shapes.twins.tasks import CausalQATask, NextTokenQATask
from tests.training.helpers import losses_of

TASKS = (PackedQATask, CausalQATask, NextTokenQATask)
OPTIONS = {
    "scenes": 8,
    "group": 4,
    "text_tokens": 120,
    "attended_turn": 1.0,
    "canvas": [0, 16],
    "grounding": 0.5,
    "letters": 1.0,
    "correct_options": 1.0,
}


@pytest.fixture(scope="module")
def parts():
    return build_tiny()


def build(kind, parts, **options) -> PackedQATask:
    return kind(*parts, **(OPTIONS | options))


def test_all_see_the_same_sequences_and_dense_labels(parts):
    full, causal, next_token = (build(kind, parts).collate([0, 1, 2, 3]) for kind in TASKS)
    assert full.keys() == causal.keys() == next_token.keys()
    targets = ("loss_weight", "answer_length", "exclusion_codes", "begins_sentence")
    for name, values in full.items():
        if isinstance(values, torch.Tensor):
            assert torch.equal(values, causal[name]), name
            assert torch.equal(values, next_token[name]) or name in targets, name
    assert full["types"] == next_token["types"]


def test_a_causal_mask_hides_what_stands_behind_and_nothing_else(parts):
    batch = build(CausalQATask, parts).collate([0, 1, 2, 3])
    full, causal = (build(kind, parts)._attention_mask(batch) for kind in (PackedQATask, CausalQATask))
    behind = torch.ones(full.shape[-2:], dtype=torch.bool).triu(1)
    assert not (causal & behind).any() and torch.equal(causal[..., ~behind], full[..., ~behind])
    assert (full & behind).any()
    for segment, positions in zip(batch["segment"], batch["position_ids"], strict=True):
        for turn in segment[segment >= 0].unique():  # so the triangle hides what comes later, and only that
            assert (positions[segment == turn].diff() > 0).all()
        assert positions[segment > 0].min() > positions[segment == 0].max()


def test_every_token_of_an_answer_is_predicted_at_the_one_before(parts):
    """With the weight that it has with masks in expectation; in all, an answer weighs the root of its length."""
    task = build(NextTokenQATask, parts)
    batch, own = task.collate([0, 1, 2, 3]), build(PackedQATask, parts).collate([0, 1, 2, 3])
    predicts, targets = batch["loss_weight"] > 0, task._targets(batch)
    assert torch.equal(batch["segment"][predicts], batch["segment"].roll(-1, 1)[predicts])
    names = {number: word for word, number in task.processor.tokenizer.get_vocab().items()}
    for row, first in (own["answer_length"] > 0).nonzero().tolist():
        length = int(own["answer_length"][row, first])
        answer, span = slice(first, first + length), slice(first - 1, first - 1 + length)
        assert predicts[row, span].all() and torch.equal(
            targets[row, span], own["input_ids"][row, first : first + length]
        )
        assert batch["loss_weight"][row, span].sum() == pytest.approx(length**0.5)
        assert torch.equal(batch["exclusion_codes"][row, span], own["exclusion_codes"][row, answer])
        assert names[int(targets[row, span][-1])] == "<|eot_id|>"
    assert int(predicts.sum()) == int(own["answer_length"].sum())


def test_one_turn_with_a_causal_mask_is_transformers_llama(parts):
    """The causal twins' network, weights and positions are those of the model that answers for the last one."""
    task = build(NextTokenQATask, parts, canvas=[0])
    batch = task.collate([0, 1])
    row = 0
    keep = (batch["segment"][row] == 0) | (batch["segment"][row] == 1)
    none = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
    with torch.no_grad():
        embedded = task._embed(batch, none)
        ours = task.model.model.language_model(
            inputs_embeds=embedded, attention_mask=task._attention_mask(batch), position_ids=batch["position_ids"]
        ).last_hidden_state
        llama = as_llama(task.model)
        theirs = llama(inputs_embeds=embedded[row, keep][None], position_ids=batch["position_ids"][row, keep][None])
    torch.testing.assert_close(task.model.lm_head(ours[row, keep]), theirs.logits[0], atol=1e-4, rtol=1e-4)


def test_one_turn_that_the_video_attends_to_is_our_own_model(parts):
    """Full attention in a packed sequence is that of the model on one question."""
    task = build(PackedQATask, parts, kept_empty=1.0, text_tokens=30)
    batch = task.collate([0]) | {"attended_turn": torch.ones(1, dtype=torch.int64)}
    keep = (batch["segment"] == 0) | (batch["segment"] == 1)
    masked = batch["loss_weight"] > 0
    with torch.no_grad():
        embedded = task._embed(batch, masked)
        ours = task.model.model.language_model(
            inputs_embeds=embedded, attention_mask=task._attention_mask(batch), position_ids=batch["position_ids"]
        ).last_hidden_state
        alone = task.model(inputs_embeds=embedded[keep][None], position_ids=batch["position_ids"][keep][None])
    torch.testing.assert_close(task.model.lm_head(ours[keep]), alone.logits[0], atol=1e-4, rtol=1e-4)


def test_packed_turns_are_masked_as_before(parts):
    batch = build(PackedQATask, parts).collate([0, 1])
    expected = packed_attention_mask(batch["segment"], batch["attended_turn"])
    assert torch.equal(build(PackedQATask, parts)._attention_mask(batch), expected)


@pytest.mark.parametrize("kind", TASKS)
def test_each_learns(parts, kind):
    import copy

    torch.manual_seed(0)
    task = build(kind, copy.deepcopy(parts), text_tokens=40)
    batch = task.collate([0, 1, 2, 3])
    outputs = task(**batch)
    assert {"answers_loss", "first_word", "grounding/shape", "cell_labels/shape"} <= outputs["metrics"].keys()
    losses = losses_of(task, batch, 12, 3e-3)
    assert losses[-1] < losses[0] * 0.7


def test_a_next_token_never_sees_itself(parts):
    """Changing a token changes no prediction of it or of what stands before."""
    task = build(NextTokenQATask, parts, canvas=[0])
    batch = task.collate([0])
    row, first = (batch["answer_length"] > 0).nonzero()[0].tolist()  # where the first word is predicted
    changed = batch | {"input_ids": batch["input_ids"].clone()}
    changed["input_ids"][row, first + 1] = task.writer.end_of_turn
    none = torch.zeros_like(batch["input_ids"], dtype=torch.bool)

    def hidden(given):
        with torch.no_grad():
            return task.model.model.language_model(
                inputs_embeds=task._embed(given, none),
                attention_mask=task._attention_mask(given),
                position_ids=given["position_ids"],
            ).last_hidden_state[row]

    before, after = hidden(batch), hidden(changed)
    torch.testing.assert_close(before[: first + 1], after[: first + 1])
    assert not torch.allclose(before[first + 1], after[first + 1])
