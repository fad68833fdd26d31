import numpy as np
import pytest
import torch

from moving_shapes.train.packing import FRAME_ROWS, who_sees_whom
from tests.moving_shapes.train.conftest import lesson


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
            padding = ids == task.writer.pad
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
    words = {id: word for word, id in task.writer.word_ids.items()}
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
