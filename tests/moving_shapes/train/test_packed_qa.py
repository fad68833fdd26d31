from unittest import mock

import pytest
import torch
from torch.utils.data import DataLoader

from moving_shapes.questions import CHOICE_TYPES
from moving_shapes.scenes.scene import SHAPES
from moving_shapes.train.combinations import training_combinations
from moving_shapes.train.dense_labels import LABELS
from moving_shapes.train.packed_qa import PackedQATask
from moving_shapes.train.scene_pool import _ENCODED
from tests.moving_shapes.train.conftest import GROUP, small_task
from tests.training.helpers import losses_of


def test_the_video_attends_to_a_turn_in_some_sequences(parts):
    numbers = list(range(8))
    assert not small_task(parts).collate(numbers)["attended_turn"].any()
    batches = [small_task(parts, attended_turn=0.5, seed=seed).collate(numbers) for seed in range(6)]
    drawn = torch.cat([batch["attended_turn"] for batch in batches])
    turns = torch.tensor([len(types) for batch in batches for types in batch["types"]])
    assert 0.2 < (drawn > 0).float().mean() < 0.8 and (drawn <= turns).all()
    assert not small_task(parts, attended_turn=1.0, text_tokens=0).collate(numbers)["attended_turn"].any()


@pytest.mark.parametrize(
    "kind, removed",
    [("color", ("first_color", "last_color", "next_color")), ("shape", ("shape", "arrival", "next_shape"))],
)
def test_rotated_words_are_in_no_answer_and_no_label(parts, kind, removed):
    """All other words and labels still are."""
    task = small_task(parts, rotated_words={"color": 0.5}, option_turns=4)
    task._draw_rotated_kind = lambda rng: kind
    batch = task.collate(list(range(8)))
    masked = batch["input_ids"][batch["loss_weight"] > 0]
    assert len(masked) and not torch.isin(masked, torch.tensor(task.writer.kinds[kind])).any()
    named = small_task(parts, option_turns=4).collate(list(range(8)))
    for i, name in enumerate(LABELS):
        for labels in ("cell_labels", "shape_labels"):
            assert (batch[labels][..., i] >= 0).any() == (name not in removed and (named[labels][..., i] >= 0).any())
    other = ({"color", "shape"} - {kind}).pop()
    assert torch.isin(masked, torch.tensor(task.writer.kinds[other])).any()
    assert not torch.equal(batch["rotations"][kind][0], batch["rotations"][kind][1])
    assert torch.equal(batch["rotations"][other][0], torch.eye(len(task.writer.kinds[other])))
    assert task(**batch)["loss"].isfinite()


def test_words_are_rotated_in_the_asked_share_of_sequences(parts):
    numbers = list(range(8))
    shares = {"color": 0.4, "shape": 0.2}
    drawn = [small_task(parts, rotated_words=shares, seed=seed).collate(numbers)["rotations"] for seed in range(6)]
    for kind, turned in small_task(parts).collate(numbers)["rotations"].items():
        named = torch.eye(turned.shape[-1])
        assert (turned == named).all()
        rotated = (torch.cat([batch[kind] for batch in drawn]) != named).any((1, 2)).float().mean()
        assert abs(rotated - shares[kind]) < 0.2


def test_a_stage_asks_its_own_questions_about_scenes_that_another_encoded(parts):
    """So that a stage gives the same sequences after others as alone, in a run that was stopped in between."""
    others = {"questions_per_type": {"shape": 5, "color": 0}, "sentences": 1.0}
    small_task(parts).collate([0, 1])
    after = small_task(parts, **others).collate([0, 1])
    _ENCODED.clear()
    alone = small_task(parts, **others).collate([0, 1])
    assert after["types"] == alone["types"] and torch.equal(after["input_ids"], alone["input_ids"])
    assert torch.equal(after["features"], alone["features"])


def test_workers_make_the_same_sequences_and_leave_the_model_alone(parts):
    """A forked process cannot use its parent's GPU: what needs the model is there before."""
    options = {"frames": [2, 3], "option_turns": 2}
    expected = [small_task(parts, **options).collate(numbers) for numbers in ([0, 1, 2, 3], [4, 5, 6, 7])]
    _ENCODED.clear()
    task = small_task(parts, **options)
    task.prepare_for_workers(2)
    with mock.patch.object(task.model, "get_video_features", side_effect=AssertionError):
        batches = DataLoader(task.dataset(), GROUP, num_workers=2, collate_fn=task.collate)
        for made, meant in zip(batches, expected, strict=False):
            for name in ("input_ids", "features", "cell_labels", "loss_weight", "segment"):
                assert torch.equal(made[name], meant[name]), name


def test_it_learns(parts):
    import copy

    torch.manual_seed(0)
    task = PackedQATask(*copy.deepcopy(parts), scenes=GROUP, group=GROUP, text_tokens=40)
    batch = task.collate(list(range(GROUP)))
    losses = losses_of(task, batch, 15, 3e-3)
    assert losses[-1] < losses[0] / 2


def test_one_option_of_four_is_correct(parts):
    """Of each multiple choice whose answer shows neither its letter nor its word; of nothing else."""
    task = small_task(
        parts, questions_per_type={"choice": 6, "pick": 6}, text_tokens=300, option_turns=2, correct_options=1.0
    )
    batch = task.collate(list(range(8)))
    count = 0
    for i, types in enumerate(batch["types"]):
        for turn, type in enumerate(types, 1):
            own = batch["segment"][i] == turn
            ids, labels = batch["input_ids"][i][own], batch["is_correct"][i][own]
            first = int(batch["answer_length"][i][own].nonzero()[0])
            if type in CHOICE_TYPES and (batch["loss_weight"][i][own][first : first + 2] > 0).all():
                assert sorted(labels[labels >= 0].tolist()) == [0, 0, 0, 1]
                assert ids[labels == 1] == ids[first + 1] and (labels[first:] < 0).all()
                count += 1
            else:
                assert (labels < 0).all()
    assert count > 5 and "correct_options" in task(**batch)["metrics"]


def test_correct_options_do_without_a_multiple_choice(parts):
    """The head still takes part in the loss: processes that train together wait for the gradients of each."""
    task = small_task(parts, questions_per_type={"choice": 0, "pick": 0}, correct_options=1.0)
    batch = task.collate([0, 1]) | {"is_correct": torch.full_like(task.collate([0, 1])["input_ids"], -1)}
    outputs = task(**batch)
    outputs["loss"].backward()
    assert "correct_options" not in outputs["metrics"] and outputs["loss"].isfinite()
    assert (task.heads["correct_options"].weight.grad == 0).all()


def test_uneven_groups_are_refused(parts):
    with pytest.raises(ValueError, match=r"`scenes` \(10\) must be a multiple of `group` \(4\)"):
        small_task(parts, scenes=10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scenes": 1000, "group": 192}, r"`scenes` \(1000\) must be a multiple of `group` \(192\)"),
        ({"questions_per_type": {"shpe": 1}}, "There is no question type 'shpe'"),
        ({"rotated_words": {"colour": 0.1}}, "`rotated_words` has 'colour': the kinds of words are color, shape"),
        ({"rotated_words": {"color": 0.7, "shape": 0.5}}, "The shares of `rotated_words` are 1.2 together"),
        ({"kinds": {"many": 0.1}}, "`kinds` has 'many': the kinds of scenes are steady, .*many_events"),
        ({"kinds": {"steady": 0.7, "groups": 0.5}}, "The shares of `kinds` are 1.2 together"),
        ({"rotated_words": 0.2}, "`rotated_words` in .* is 0.2: .* valid dictionary"),
        ({"attended_turn": 2}, "`attended_turn` in .* is 2: .* less than or equal to 1"),
        ({"group": 24.0}, "`group` in .* is 24.0: .* valid integer"),
        ({"frames": ["8"]}, r"`frames` in .* is \['8'\]: .* valid integer"),
    ],
)
def test_impossible_options_are_errors_before_anything_runs(options, message):
    with pytest.raises(ValueError, match=message):
        PackedQATask.check(options)


def test_labels_deeper_than_the_model_are_refused(parts):
    with pytest.raises(ValueError, match="`depth` is 7: labels would follow layer 9 of 8"):
        small_task(parts, depth=7, grounding=0.5)
    with pytest.raises(ValueError, match="`depth` is 8: labels would follow layer 9 of 8"):
        small_task(parts, depth=8, correct_options=1.0)


def test_a_pool_holds_a_share_of_a_kind_of_scenes(parts):
    """The others stay the scenes that they are without it."""
    plain, mixed = (small_task(parts, scenes=40, kinds=kinds).pool for kinds in ({}, {"many_events": 0.5}))
    kinds = [mixed.draw(number)[0].kind for number in range(40)]
    assert 10 < kinds.count("many_events") < 32
    for number, kind in enumerate(kinds):
        if kind != "many_events":
            assert mixed.draw(number)[0] == plain.draw(number)[0]


def test_dense_labels_exclude_what_training_does_not_combine(parts):
    """But for the class of no shape, and where the label is not known."""
    task = small_task(parts)
    possible = task._in_training_with("shape", torch.tensor([2, len(SHAPES), -1]))
    assert possible[0].tolist() == [*training_combinations()[:, 2].tolist(), True]
    assert not possible[0].all() and possible[1:].all()


def test_heads_take_part_where_a_batch_has_none_of_their_labels(parts):
    """Processes that train together wait for the gradients of each."""
    task = small_task(parts, letters=1.0, grounding=1.0)
    batch = task.collate([0, 1])
    none = {"letter_before": -1, "shape_labels": -1, "cell_labels": -1}
    batch |= {name: torch.full_like(batch[name], value) for name, value in none.items()}
    task(**batch)["loss"].backward()
    for name in ("cell_labels", "grounding", "letters"):
        assert (task.heads[name].weight.grad == 0).all()
