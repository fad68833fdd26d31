import pytest
import torch

from moving_shapes import words
from moving_shapes.train.restricted_conversations import SOURCE, RestrictedConversationTask
from moving_shapes.train.tiny_model import build_tiny
from tests.llava_files import write_llava
from tests.training.helpers import losses_of
from vidlada_hf.modeling.objective_vidlada import draw_masks
from vidlada_hf.training.conversation_task import ConversationTask

DATA = {"source": SOURCE, "length": 12, "frames": [4], "types": ["color", "shape", "motion"], "long": 0.5}


@pytest.fixture(scope="module")
def task() -> RestrictedConversationTask:
    model, processor = build_tiny()
    with torch.no_grad():
        model.lm_head.weight *= 4  # logits as far from each other as a trained model's
    return RestrictedConversationTask(model, processor, data=DATA, labels={"padding": True, "canvas": [32]})


@pytest.fixture(scope="module")
def batch(task) -> dict:
    data = task.dataset()
    batch = task.collate([data[i] for i in range(len(data))])
    generator = torch.Generator().manual_seed(0)
    rates = torch.full((len(data),), 0.5)
    return batch | {"masked": draw_masks(batch["labels"], rates, generator), "mask_probabilities": rates}


def test_each_word_has_the_code_of_its_shape_or_color(task, batch):
    names = {number: word for word, number in task.processor.tokenizer.get_vocab().items()}
    data, coded = task.dataset(), 0
    for i, (ids, codes, labels) in enumerate(
        zip(batch["input_ids"], batch["exclusion_codes"], batch["labels"], strict=True)
    ):
        answer = words(data[i]["example"].details.training_answer)
        first = int((labels >= 0).nonzero()[0])
        assert [names[int(token)] for token in ids[first : first + len(answer)]] == answer
        for token in codes.nonzero()[:, 0].tolist():
            excluded = [word for number, word in names.items() if task.excluded_words[codes[token], number]]
            assert names[int(ids[token])] not in excluded and 1 <= len(excluded) <= 3
            coded += 1
    assert coded > len(data)


def test_the_loss_is_the_models_own_where_nothing_is_excluded(task, batch):
    arguments = {name: value for name, value in batch.items() if name != "exclusion_codes"}
    with torch.no_grad():
        expected = task.model(**arguments).loss
        torch.testing.assert_close(
            task(**arguments, exclusion_codes=torch.zeros_like(batch["exclusion_codes"]))["loss"], expected
        )
        assert 0 < task(**batch)["loss"] <= expected


@pytest.mark.parametrize("kind", [RestrictedConversationTask, ConversationTask])
def test_excluded_words_are_not_unlearned(task, batch, kind):
    """Their logits get no gradient, while the plain objective pushes them down."""
    logits = []

    def keep(module, inputs, output):
        output.retain_grad()
        logits.append(output)

    hook = task.model.lm_head.register_forward_hook(keep)
    arguments = dict(batch)
    if kind is ConversationTask:
        del arguments["exclusion_codes"]
    kind.forward(task, **arguments)["loss"].backward()
    hook.remove()
    gradient = logits[0].grad
    excluded = task.excluded_words[batch["exclusion_codes"][batch["masked"]]]
    assert excluded.any() and (gradient[~excluded] != 0).any()
    if kind is RestrictedConversationTask:
        assert (gradient[excluded] == 0).all()
    else:
        assert (gradient[excluded] > 0).all()


def test_it_learns(task, batch):
    few = {name: value[:4] for name, value in batch.items()}
    losses = losses_of(task, few, 12, 3e-3)
    assert sum(losses[-3:]) < sum(losses[:3]) / 2


def test_another_source_is_refused(tmp_path):
    with pytest.raises(ValueError, match=f"RestrictedConversationTask needs the source '{SOURCE}', got 'llava'"):
        RestrictedConversationTask.check({"data": {"source": "llava", "path": str(write_llava(tmp_path, 1))}})
    with pytest.raises(ValueError, match="learns answers alone: leave `headers`"):
        RestrictedConversationTask.check({"data": DATA, "labels": "official"})
    with pytest.raises(
        ValueError,
        match="Unknown key `label` in `options` of the task RestrictedConversationTask: did you mean `labels`",
    ):
        RestrictedConversationTask.check({"data": DATA, "label": "answers"})
