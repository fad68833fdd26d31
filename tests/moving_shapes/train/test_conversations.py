import pytest

from moving_shapes.train.conversations import ShapeConversations
from moving_shapes.train.restricted_conversations import SOURCE
from moving_shapes.train.tiny_model import build_tiny
from tests.training.helpers import losses_of
from vidlada_hf.training.conversation_task import ConversationTask

DATA = {"source": SOURCE, "length": 8, "group": 2, "frames": [2], "types": ["color", "shape"], "long": 0}


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


def test_it_learns_under_the_models_own_objective():
    task = ConversationTask(*build_tiny(), data=DATA, labels={"padding": True, "canvas": [4]})
    batch = task.collate([task.dataset()[i] for i in range(4)])
    assert batch["labels"].shape == batch["input_ids"].shape
    losses = losses_of(task, batch, 12, 3e-3)
    assert sum(losses[-3:]) < sum(losses[:3]) / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": 0}, f"`group` in `data` of the source {SOURCE!r} is 0: .* greater than or equal to 1"),
        ({"length": 0}, "`length` in .* is 0: .* greater than or equal to 1"),
        ({"lenght": 4}, f"Unknown key `lenght` in `data` of the source {SOURCE!r}: .*`length`"),
        ({"frames": []}, r"`frames` in .* is \[\]: .* at least 1 item"),
        ({"frames": [0]}, r"`frames` in .* is \[0\]: .* greater than or equal to 1"),
        ({"types": []}, r"`types` in .* is \[\]: .* at least 1 item"),
        ({"types": ["caption"]}, "`types` are caption: name one with short answers"),
        ({"types": ["colour"]}, "There is no question type 'colour'"),
        ({"types": ["last"], "frames": [1]}, "No question of type 'last' can be answered from 1 frames"),
        ({"long": 2}, "`long` in .* is 2: .* less than or equal to 1"),
    ],
)
def test_impossible_options_are_errors_before_anything_runs(options, message):
    with pytest.raises(ValueError, match=message):
        ConversationTask.check({"data": DATA | options})
