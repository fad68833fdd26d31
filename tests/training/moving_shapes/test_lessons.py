import numpy as np
import pytest
import torch

from tests.training.helpers import losses_of
from vidlada_hf.evaluation.moving_shapes import MovingShapes, frame_times
from vidlada_hf.evaluation.moving_shapes.cells import label_cells
from vidlada_hf.evaluation.moving_shapes.scenes import COLORS, MOTIONS
from vidlada_hf.training.moving_shapes.lessons import _BANKS, FRAME_ROWS, Lessons, who_sees_whom
from vidlada_hf.training.moving_shapes.timelines import TIMELINES, label_timelines
from vidlada_hf.training.moving_shapes.tiny import build_tiny

GROUP = 4


@pytest.fixture(scope="module")
def parts():
    return build_tiny()


def lesson(parts, **options):
    return Lessons(*parts, **({"scenes": 8, "group": GROUP} | options))


def test_a_turn_is_what_the_chat_template_makes_of_it(parts):
    """With nothing left out, the opening, the video and one turn are the prompt with its answer."""
    task = lesson(parts, kept=1.0)
    batch = task.collate([0, 1])
    tokenizer = task.processor.tokenizer
    for i in range(2):
        segment, ids = batch["segment"][i], batch["ids"][i]
        for turn in range(1, int(segment.max()) + 1):
            shown = (segment == 0) | (segment == turn)
            position = batch["position"][i][shown]
            assert torch.equal(position, torch.arange(len(position)))
            text = tokenizer.decode(ids[segment == turn])
            question, answer = text.split("<|eot_id|>")[:2]
            answer = answer.replace("<|start_header_id|> assistant <|end_header_id|>", "")
            conversation = [
                {
                    "role": "user",
                    "content": [
                        {"type": "video", "video": np.zeros((8, 64, 64, 3), np.uint8)},
                        {"type": "text", "text": question.strip()},
                    ],
                },
                {"role": "assistant", "content": answer.strip()},
            ]
            expected = task.processor.apply_chat_template(
                conversation, tokenize=True, return_dict=True, return_tensors="pt"
            )["input_ids"][0]
            assert torch.equal(expected[-int((segment == turn).sum()) :], ids[segment == turn])
            assert len(expected) == len(position)


@pytest.mark.parametrize("seen", [0, 2])
def test_packed_turns_give_the_logits_of_each_turn_alone(parts, seen):
    """A turn sees the video and itself, so its neighbors change nothing; nor does any turn that the video does not see.
    A turn that is seen and alone is what `generate` computes: everything sees everything."""
    task = lesson(parts)
    batch = task.collate([0])
    segment, number = batch["segment"], torch.tensor([seen])
    network = task.model.model.language_model
    rows = task.model.get_input_embeddings()(batch["ids"])
    packed = network(
        inputs_embeds=rows, attention_mask=who_sees_whom(segment, number), position_ids=batch["position"]
    ).last_hidden_state
    one = (segment[0] == 0) | (segment[0] == 2)
    alone = network(
        inputs_embeds=rows[:, one],
        attention_mask=None if seen else who_sees_whom(segment[:, one], number),
        position_ids=batch["position"][:, one],
    ).last_hidden_state
    assert torch.allclose(packed[:, one], alone, atol=1e-4)


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
    task = lesson(parts, nameless=0.5, options=4)
    task._draw_nameless = lambda rng: kind
    batch = task.collate(list(range(8)))
    told = batch["ids"][batch["weight"] > 0]
    assert len(told) and not torch.isin(told, torch.tensor(task.kinds[kind])).any()
    named = lesson(parts, options=4).collate(list(range(8)))
    for place, name in enumerate(TIMELINES):
        for labels in ("labels", "lives"):
            assert (batch[labels][..., place] >= 0).any() == (
                name not in forgotten and (named[labels][..., place] >= 0).any()
            )
    other = ({"color", "shape"} - {kind}).pop()
    assert torch.isin(told, torch.tensor(task.kinds[other])).any()
    assert not torch.equal(batch["turned"][kind][0], batch["turned"][kind][1])
    assert torch.equal(batch["turned"][other][0], torch.eye(len(task.kinds[other])))
    assert task(**batch)["loss"].isfinite()


def test_all_lessons_have_names_unless_some_are_to_have_none(parts):
    numbers = list(range(8))
    drawn = [lesson(parts, nameless=0.3, seed=seed).collate(numbers)["turned"] for seed in range(6)]
    for kind, turned in lesson(parts).collate(numbers)["turned"].items():
        named = torch.eye(turned.shape[-1])
        assert (turned == named).all()
        nameless = (torch.cat([batch[kind] for batch in drawn]) != named).any((1, 2)).float().mean()
        assert 0.1 < nameless < 0.5


def test_left_out_rows_keep_the_positions_of_the_others(parts):
    task = lesson(parts, kept=0.0)
    batch = task.collate([0, 1, 2, 3])
    for i in range(4):
        material = task.bank[i, 8]
        cell, position = batch["cell"][i], batch["position"][i]
        shown = cell >= 0
        assert int(shown.sum()) == material.filled.sum() and not (cell == -2).any()
        place = position[shown] - 4
        assert torch.equal(place // FRAME_ROWS * 16 + place % FRAME_ROWS // 5 * 4 + place % 5, cell[shown])
        assert torch.allclose(batch["features"][i][shown], material.features[cell[shown]].float())


def test_every_masked_token_is_an_answers(parts):
    batch = lesson(parts).collate([0, 1, 2, 3])
    for i in range(4):
        starts = (batch["answers"][i] > 0).nonzero()[:, 0]
        answer = torch.zeros(batch["ids"].shape[1], dtype=torch.bool)
        for start in starts:
            answer[start : start + batch["answers"][i][start]] = True
        assert (batch["weight"][i] > 0).any() and not (batch["weight"][i][~answer] > 0).any()


def test_padding_lies_where_the_canvas_has_it(parts):
    """Behind the answer, at places of its own, and masked where the whole answer is."""
    task = lesson(parts, canvas=[32], padding=6, text_rows=400, long_turns=0.0)
    batch = task.collate([0, 1, 2, 3])
    found = 0
    for i in range(4):
        for turn in range(1, int(batch["segment"][i].max()) + 1):
            mine = batch["segment"][i] == turn
            ids, position, weight = batch["ids"][i][mine], batch["position"][i][mine], batch["weight"][i][mine]
            first = int(batch["answers"][i][mine].nonzero()[0])
            answer = int(batch["answers"][i][mine][first])
            padding = ids == task.pad
            found += int(padding.sum())
            assert not padding[: first + answer].any() and padding[first + answer :].all()
            assert (position.diff() >= 1).all() and position[-1] < position[first] + 32
            if (weight[first : first + answer] > 0).all():
                assert (weight[padding] > 0).all()
    assert found > 20


def test_options_tell_a_letter_or_its_word(parts):
    """One of the two is masked, and what is listed says which it is."""
    task = lesson(parts, options=6)
    batch = task.collate([0, 1, 2, 3])
    words = {id: word for word, id in task.word_ids.items()}
    asked = []
    for i in range(4):
        for turn, type in enumerate(batch["types"][i], 1):
            if type != "options":
                continue
            mine = batch["segment"][i] == turn
            said = [words[id] for id in batch["ids"][i][mine].tolist()]
            first = int(batch["answers"][i][mine].nonzero()[0])
            listed = dict(zip(said[0:8:2], said[1:8:2], strict=True))
            assert listed[said[first]] == said[first + 1]
            assert batch["behind"][i][mine][[1, 3, 5, 7]].tolist() == [0, 1, 2, 3]
            assert batch["behind"][i][mine][first + 1] == "(a)(b)(c)(d)".index(said[first]) // 3
            assert batch["said"][i][mine].nonzero()[0] == first
            masked = (batch["weight"][i][mine][first:] > 0).nonzero()[:, 0].tolist()
            asked.append(*masked)
    assert len(asked) == 24 and set(asked) == {0, 1}


def test_a_stage_asks_its_own_questions_about_scenes_that_another_encoded(parts):
    """So that a stage gives the same lessons after others as alone, in a run that was stopped in between."""
    others = {"repeat": {"shape": 5, "color": 0}, "sentences": 1.0}
    lesson(parts).collate([0, 1])
    after = lesson(parts, **others).collate([0, 1])
    _BANKS.clear()
    alone = lesson(parts, **others).collate([0, 1])
    assert after["types"] == alone["types"] and torch.equal(after["ids"], alone["ids"])
    assert torch.equal(after["features"], alone["features"])


def test_timelines_tell_the_life_of_the_shape_in_the_cell():
    scene, _ = MovingShapes("train", 20, types=("motion",)).draw(0)
    times = frame_times(8)
    cells = label_cells(scene, times)
    labels = label_timelines(scene, times, cells)
    names = list(TIMELINES)
    assert (labels[cells.identity < 0] == -1).all()
    for place, shape in enumerate(scene.shapes):
        mine = labels[cells.identity == place]
        assert len(np.unique(mine[:, [i for i, n in enumerate(names) if n != "arrival"]], axis=0)) == 1
        told = dict(zip(names, mine[0], strict=True))
        assert told["order"] == place and told["first_color"] == COLORS.index(shape.color)
        assert told["motion"] == (-1 if shape.motion is None else MOTIONS.index(shape.motion))
        assert told["there_at_end"] == shape.visible(times)[-1]


def test_it_learns(parts):
    import copy

    torch.manual_seed(0)
    task = Lessons(*copy.deepcopy(parts), scenes=GROUP, group=GROUP, text_rows=40)
    batch = task.collate(list(range(GROUP)))
    losses = losses_of(task, batch, 15, 3e-3)
    assert losses[-1] < losses[0] / 2


def test_uneven_groups_are_refused(parts):
    with pytest.raises(ValueError, match=r"`scenes` \(10\) must be a multiple of `group` \(4\)"):
        lesson(parts, scenes=10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scenes": 1000, "group": 192}, r"`scenes` \(1000\) must be a multiple of `group` \(192\)"),
        ({"repeat": {"shpe": 1}}, "There is no question type 'shpe'"),
        ({"seen": 2}, "`seen` in .* is 2: .* less than or equal to 1"),
        ({"group": 24.0}, "`group` in .* is 24.0: .* valid integer"),
        ({"frames": ["8"]}, r"`frames` in .* is \['8'\]: .* valid integer"),
    ],
)
def test_impossible_pools_are_told_before_anything_runs(options, message):
    with pytest.raises(ValueError, match=message):
        Lessons.check(options)


def test_labels_deeper_than_the_model_are_refused(parts):
    with pytest.raises(ValueError, match="`depth` is 7: labels would follow layer 9 of 8"):
        lesson(parts, depth=7, grounding=0.5)
