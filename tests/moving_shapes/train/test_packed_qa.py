from unittest import mock

import pytest
import torch
from torch.utils.data import DataLoader

from moving_shapes.questions import CHOICE_TYPES
from moving_shapes.train.packed_qa import _BANKS, PackedQATask
from moving_shapes.train.timelines import TIMELINES
from tests.moving_shapes.train.conftest import GROUP, lesson
from tests.training.helpers import losses_of


def test_some_lessons_have_a_turn_that_the_video_sees(parts):
    numbers = list(range(8))
    assert not lesson(parts).collate(numbers)["seen"].any()
    batches = [lesson(parts, seen=0.5, seed=seed).collate(numbers) for seed in range(6)]
    drawn = torch.cat([batch["seen"] for batch in batches])
    turns = torch.tensor([len(types) for batch in batches for types in batch["types"]])
    assert 0.2 < (drawn > 0).float().mean() < 0.8 and (drawn <= turns).all()
    assert not lesson(parts, seen=1.0, text_rows=0).collate(numbers)["seen"].any()


@pytest.mark.parametrize("kind, forgotten", [("color", ("first_color", "last_color")), ("shape", ("shape", "arrival"))])
def test_what_has_no_name_is_not_asked_for(parts, kind, forgotten):
    """Neither by an answer nor by a label; all else still is."""
    task = lesson(parts, nameless={"color": 0.5}, options=4)
    task._draw_nameless = lambda rng: kind
    batch = task.collate(list(range(8)))
    told = batch["ids"][batch["weight"] > 0]
    assert len(told) and not torch.isin(told, torch.tensor(task.writer.kinds[kind])).any()
    named = lesson(parts, options=4).collate(list(range(8)))
    for place, name in enumerate(TIMELINES):
        for labels in ("labels", "lives"):
            assert (batch[labels][..., place] >= 0).any() == (
                name not in forgotten and (named[labels][..., place] >= 0).any()
            )
    other = ({"color", "shape"} - {kind}).pop()
    assert torch.isin(told, torch.tensor(task.writer.kinds[other])).any()
    assert not torch.equal(batch["turned"][kind][0], batch["turned"][kind][1])
    assert torch.equal(batch["turned"][other][0], torch.eye(len(task.writer.kinds[other])))
    assert task(**batch)["loss"].isfinite()


def test_all_lessons_have_names_unless_some_are_to_have_none(parts):
    numbers = list(range(8))
    shares = {"color": 0.4, "shape": 0.2}
    drawn = [lesson(parts, nameless=shares, seed=seed).collate(numbers)["turned"] for seed in range(6)]
    for kind, turned in lesson(parts).collate(numbers)["turned"].items():
        named = torch.eye(turned.shape[-1])
        assert (turned == named).all()
        nameless = (torch.cat([batch[kind] for batch in drawn]) != named).any((1, 2)).float().mean()
        assert abs(nameless - shares[kind]) < 0.2


def test_a_stage_asks_its_own_questions_about_scenes_that_another_encoded(parts):
    """So that a stage gives the same lessons after others as alone, in a run that was stopped in between."""
    others = {"repeat": {"shape": 5, "color": 0}, "sentences": 1.0}
    lesson(parts).collate([0, 1])
    after = lesson(parts, **others).collate([0, 1])
    _BANKS.clear()
    alone = lesson(parts, **others).collate([0, 1])
    assert after["types"] == alone["types"] and torch.equal(after["ids"], alone["ids"])
    assert torch.equal(after["features"], alone["features"])


def test_workers_make_the_same_lessons_and_leave_the_model_alone(parts):
    """A forked process cannot use its parent's GPU: what needs the model is there before."""
    options = {"frames": [2, 3], "options": 2}
    expected = [lesson(parts, **options).collate(numbers) for numbers in ([0, 1, 2, 3], [4, 5, 6, 7])]
    _BANKS.clear()
    task = lesson(parts, **options)
    task.prepare_for_workers(2)
    with mock.patch.object(task.model, "get_video_features", side_effect=AssertionError):
        batches = DataLoader(task.dataset(), GROUP, num_workers=2, collate_fn=task.collate)
        for made, meant in zip(batches, expected, strict=False):
            for name in ("ids", "features", "labels", "weight", "segment"):
                assert torch.equal(made[name], meant[name]), name


def test_it_learns(parts):
    import copy

    torch.manual_seed(0)
    task = PackedQATask(*copy.deepcopy(parts), scenes=GROUP, group=GROUP, text_rows=40)
    batch = task.collate(list(range(GROUP)))
    losses = losses_of(task, batch, 15, 3e-3)
    assert losses[-1] < losses[0] / 2


def test_one_option_of_four_is_the_answer(parts):
    """Of each multiple choice whose answer shows neither its letter nor its word; of nothing else."""
    task = lesson(parts, repeat={"choice": 6, "pick": 6}, text_rows=300, options=2, verdicts=1.0)
    batch = task.collate(list(range(8)))
    judged = 0
    for i, types in enumerate(batch["types"]):
        for turn, type in enumerate(types, 1):
            mine = batch["segment"][i] == turn
            ids, verdicts = batch["ids"][i][mine], batch["verdicts"][i][mine]
            first = int(batch["answers"][i][mine].nonzero()[0])
            if type in CHOICE_TYPES and (batch["weight"][i][mine][first : first + 2] > 0).all():
                assert sorted(verdicts[verdicts >= 0].tolist()) == [0, 0, 0, 1]
                assert ids[verdicts == 1] == ids[first + 1] and (verdicts[first:] < 0).all()
                judged += 1
            else:
                assert (verdicts < 0).all()
    assert judged > 5 and "verdicts" in task(**batch)["metrics"]


def test_verdicts_do_without_a_multiple_choice(parts):
    """The head still takes part in the loss: processes that train together wait for the gradients of each."""
    task = lesson(parts, repeat={"choice": 0, "pick": 0}, verdicts=1.0)
    batch = task.collate([0, 1]) | {"verdicts": torch.full_like(task.collate([0, 1])["ids"], -1)}
    outputs = task(**batch)
    outputs["loss"].backward()
    assert "verdicts" not in outputs["metrics"] and outputs["loss"].isfinite()
    assert (task.heads["verdicts"].weight.grad == 0).all()


def test_uneven_groups_are_refused(parts):
    with pytest.raises(ValueError, match=r"`scenes` \(10\) must be a multiple of `group` \(4\)"):
        lesson(parts, scenes=10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scenes": 1000, "group": 192}, r"`scenes` \(1000\) must be a multiple of `group` \(192\)"),
        ({"repeat": {"shpe": 1}}, "There is no question type 'shpe'"),
        ({"nameless": {"colour": 0.1}}, "`nameless` has 'colour': words without names are of color, shape"),
        ({"nameless": {"color": 0.7, "shape": 0.5}}, "The shares of `nameless` are 1.2 together"),
        ({"nameless": 0.2}, "`nameless` in .* is 0.2: .* valid dictionary"),
        ({"seen": 2}, "`seen` in .* is 2: .* less than or equal to 1"),
        ({"group": 24.0}, "`group` in .* is 24.0: .* valid integer"),
        ({"frames": ["8"]}, r"`frames` in .* is \['8'\]: .* valid integer"),
    ],
)
def test_impossible_pools_are_told_before_anything_runs(options, message):
    with pytest.raises(ValueError, match=message):
        PackedQATask.check(options)


def test_labels_deeper_than_the_model_are_refused(parts):
    with pytest.raises(ValueError, match="`depth` is 7: labels would follow layer 9 of 8"):
        lesson(parts, depth=7, grounding=0.5)
    with pytest.raises(ValueError, match="`depth` is 8: labels would follow layer 9 of 8"):
        lesson(parts, depth=8, verdicts=1.0)
