import pytest

from moving_shapes.train.tiny_model import build_tiny
from tests.training.helpers import losses_of
from vidlada_hf.training.conversations import Conversations
from vidlada_hf.training.data.sources import ShapeConversations, build_dataset

DATA = {"source": "moving_shapes", "length": 8, "group": 2, "frames": [2], "types": ["color", "shape"], "long": 0}


@pytest.fixture(scope="module")
def parts():
    return build_tiny()


def test_a_group_has_one_number_of_frames_and_one_kind_of_answers():
    dataset = ShapeConversations(80, group=4, frames=(8, 12), long=0.5)
    counts, kinds = set(), set()
    for start in range(0, 80, 4):
        group = [dataset[i]["messages"] for i in range(start, start + 4)]
        frames = {len(messages[0]["content"][0]["video"]) for messages in group}
        long = {messages[0]["content"][1]["text"].lower().startswith("describe") for messages in group}
        assert len(frames) == len(long) == 1
        counts |= frames
        kinds |= long
    assert counts == {8, 12} and kinds == {True, False}


def test_examples_follow_from_the_seed():
    same, again, other = (ShapeConversations(4, seed=seed)[3]["messages"] for seed in (1, 1, 2))
    assert same[1] == again[1] and (same[0]["content"][0]["video"] == again[0]["content"][0]["video"]).all()
    assert not (same[0]["content"][0]["video"] == other[0]["content"][0]["video"]).all()


def test_it_learns_under_the_models_own_objective(parts):
    task = Conversations(*parts, data=DATA, labels={"padding": True, "canvas": [4]})
    batch = task.collate([task.dataset()[i] for i in range(4)])
    assert batch["labels"].shape == batch["input_ids"].shape
    losses = losses_of(task, batch, 12, 3e-3)
    assert sum(losses[-3:]) < sum(losses[:3]) / 2


def test_an_answer_longer_than_the_context_is_refused(parts):
    task = Conversations(*parts, data=DATA)
    assert task.collator.options.max_length == parts[0].config.text_config.max_position_embeddings
    example = task.dataset()[0]
    example["messages"][1]["content"] = "red " * 5000
    with pytest.raises(ValueError, match="Example 0 of the batch takes 5[0-9]+ tokens, more than `max_length`"):
        task.collate([example])


def test_data_may_have_a_seed_of_their_own(parts):
    Conversations.check({"data": DATA | {"seed": 3}})
    seeds = [Conversations(*parts, seed=seed, data=DATA | {"seed": 3}).dataset().seed for seed in (0, 1)]
    assert seeds == [3, 3] and Conversations(*parts, seed=1, data=DATA).dataset().seed == 1


def test_an_unknown_source_lists_the_known_ones():
    with pytest.raises(ValueError, match="There is no source 'shapes': known are 'moving_shapes', 'llava', 'messages'"):
        build_dataset("shapes", seed=0)
    with pytest.raises(ValueError, match="Unknown key `lenght` in `data` of the source 'moving_shapes': .*`length`"):
        build_dataset("moving_shapes", seed=0, lenght=4)
