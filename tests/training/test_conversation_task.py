import pytest

from tests.tiny_models import build_tiny
from tests.training.helpers import DATA, losses_of
from vidlada_hf.training.conversation_task import ConversationTask


@pytest.fixture(scope="module")
def parts():
    return build_tiny()


def test_it_learns_under_the_models_own_objective(parts):
    task = ConversationTask(*build_tiny(), data=DATA, labels={"padding": True, "canvas": [40]})
    batch = task.collate([task.dataset()[i] for i in range(4)])
    assert batch["labels"].shape == batch["input_ids"].shape
    losses = losses_of(task, batch, 12, 3e-3)
    assert sum(losses[-3:]) < sum(losses[:3]) / 2


def test_an_answer_longer_than_the_context_is_refused(parts):
    task = ConversationTask(*parts, data=DATA)
    context = parts[0].config.text_config.max_position_embeddings
    assert task.collator.options.max_length == context and not task.has_max_length
    example = task.dataset()[0]
    example["messages"][1]["content"] = "x" * context
    with pytest.raises(ValueError, match="Example 0 of the batch takes [0-9]+ tokens, more than `max_length`"):
        task.collate([example])
    with pytest.raises(ValueError, match=f"`max_length` is {context + 1}, and the model's context {context}: lower it"):
        ConversationTask(*parts, data=DATA, labels={"max_length": context + 1})


def test_data_may_have_a_seed_of_their_own(parts):
    ConversationTask.check({"data": DATA | {"seed": 3}})
    seeds = [ConversationTask(*parts, seed=seed, data=DATA | {"seed": 3}).dataset().seed for seed in (0, 1)]
    assert seeds == [3, 3] and ConversationTask(*parts, seed=1, data=DATA).dataset().seed == 1


def test_options_for_files_are_refused_for_other_sources():
    with pytest.raises(ValueError, match="too_long: for sources of files only, which '.*BrightnessQuestions' is not"):
        ConversationTask.check({"data": DATA, "too_long": "skip"})
