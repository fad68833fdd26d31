import numpy as np
import pytest
import torch

from moving_shapes.questions import LONG_TYPES
from moving_shapes.scenes.scene import COLORS, SHAPES
from moving_shapes.train.dense_labels import LABELS
from moving_shapes.train.packing import BLOCK, FRAME_TOKENS, NEWLINE, draw_block_masks, packed_attention_mask
from tests.moving_shapes.train.conftest import small_task


def test_a_turn_is_what_the_chat_template_makes_of_it(parts):
    """With nothing left out, the opening, the video and one turn are the prompt with its answer."""
    task = small_task(parts, kept_empty=1.0)
    batch = task.collate([0, 1])
    tokenizer = task.processor.tokenizer
    for i in range(2):
        segment, ids = batch["segment"][i], batch["input_ids"][i]
        for turn in range(1, int(segment.max()) + 1):
            of_prompt = (segment == 0) | (segment == turn)
            position = batch["position_ids"][i][of_prompt]
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


@pytest.mark.parametrize("attended", [0, 2])
def test_packed_turns_give_the_logits_of_each_turn_alone(parts, attended):
    """A turn attends to the video and itself, so its neighbors change nothing; nor does any turn that the video does
    not attend to. A turn that it attends to, alone, is what `generate` computes: full attention."""
    task = small_task(parts)
    batch = task.collate([0])
    segment, number = batch["segment"], torch.tensor([attended])
    network = task.model.model.language_model
    embedded = task.model.get_input_embeddings()(batch["input_ids"])
    packed = network(
        inputs_embeds=embedded,
        attention_mask=packed_attention_mask(segment, number),
        position_ids=batch["position_ids"],
    ).last_hidden_state
    one = (segment[0] == 0) | (segment[0] == 2)
    alone = network(
        inputs_embeds=embedded[:, one],
        attention_mask=None if attended else packed_attention_mask(segment[:, one], number),
        position_ids=batch["position_ids"][:, one],
    ).last_hidden_state
    assert torch.allclose(packed[:, one], alone, atol=1e-4)


def test_tokens_keep_their_positions_where_others_are_left_out(parts):
    task = small_task(parts, kept_empty=0.0)
    batch = task.collate([0, 1, 2, 3])
    for i in range(4):
        scene = task.pool[i]
        cell, position = batch["cell"][i], batch["position_ids"][i]
        is_cell = cell >= 0
        assert int(is_cell.sum()) == scene.is_filled.sum() and not (cell == NEWLINE).any()
        token = position[is_cell] - 4
        assert torch.equal(token // FRAME_TOKENS * 16 + token % FRAME_TOKENS // 5 * 4 + token % 5, cell[is_cell])
        assert torch.allclose(batch["features"][i][is_cell], scene.features[cell[is_cell]].float())


def test_every_masked_token_is_an_answers(parts):
    batch = small_task(parts).collate([0, 1, 2, 3])
    for i in range(4):
        starts = (batch["answer_length"][i] > 0).nonzero()[:, 0]
        answer = torch.zeros(batch["input_ids"].shape[1], dtype=torch.bool)
        for start in starts:
            answer[start : start + batch["answer_length"][i][start]] = True
        assert (batch["loss_weight"][i] > 0).any() and not (batch["loss_weight"][i][~answer] > 0).any()


def test_padding_lies_where_the_canvas_has_it(parts):
    """Behind the answer, at positions of its own, and masked where the whole answer is."""
    task = small_task(parts, canvas=[32], padding=6, text_tokens=400, long_answers=0.0)
    batch = task.collate([0, 1, 2, 3])
    count = 0
    for i in range(4):
        for turn in range(1, int(batch["segment"][i].max()) + 1):
            own = batch["segment"][i] == turn
            ids, position, weight = (
                batch["input_ids"][i][own],
                batch["position_ids"][i][own],
                batch["loss_weight"][i][own],
            )
            first = int(batch["answer_length"][i][own].nonzero()[0])
            answer = int(batch["answer_length"][i][own][first])
            padding = ids == task.writer.pad
            count += int(padding.sum())
            assert not padding[: first + answer].any() and padding[first + answer :].all()
            assert (position.diff() >= 1).all() and position[-1] < position[first] + 32
            if (weight[first : first + answer] > 0).all():
                assert (weight[padding] > 0).all()
    assert count > 20


def test_option_lists_mask_a_letter_or_its_word(parts):
    """One of the two is masked, and follows from the list."""
    task = small_task(parts, option_turns=6)
    batch = task.collate([0, 1, 2, 3])
    words = {id: word for word, id in task.writer.word_ids.items()}
    masked_tokens = []
    for i in range(4):
        for turn, type in enumerate(batch["types"][i], 1):
            if type != "options":
                continue
            own = batch["segment"][i] == turn
            turn_words = [words[id] for id in batch["input_ids"][i][own].tolist()]
            first = int(batch["answer_length"][i][own].nonzero()[0])
            listed = dict(zip(turn_words[0:8:2], turn_words[1:8:2], strict=True))
            assert listed[turn_words[first]] == turn_words[first + 1]
            assert batch["letter_before"][i][own][[1, 3, 5, 7]].tolist() == [0, 1, 2, 3]
            assert batch["letter_before"][i][own][first + 1] == "(a)(b)(c)(d)".index(turn_words[first]) // 3
            assert batch["in_answer"][i][own].nonzero()[0] == first
            masked = (batch["loss_weight"][i][own][first:] > 0).nonzero()[:, 0].tolist()
            masked_tokens.append(*masked)
    assert len(masked_tokens) == 24 and set(masked_tokens) == {0, 1}


def test_a_sequence_has_several_long_answers(parts):
    """The same one again, with other masks, where a scene has too few."""
    options = {"text_tokens": 2000, "long_answers": 1.0, "questions_per_type": {"caption": 1, "detail": 0}}
    for long_turns in (1, 3):
        batch = small_task(parts, **options, long_turns=long_turns).collate([0, 1, 2, 3])
        for i, types in enumerate(batch["types"]):
            long = [number for number, type in enumerate(types, 1) if type in LONG_TYPES]
            ids = [batch["input_ids"][i][batch["segment"][i] == number].tolist() for number in long]
            assert len(long) in (0, long_turns) and all(own == ids[0] for own in ids)
    assert any(LONG_TYPES[0] in types for types in batch["types"])


def test_block_masks_are_some_of_a_block_and_all_behind_it():
    rng = np.random.default_rng(0)
    drawn = [draw_block_masks(80, rng).tolist() for _ in range(300)]
    for masked in drawn:
        assert masked and len(set(masked)) == len(masked) and set(masked) <= set(range(80))
        assert set(range(min(masked) + BLOCK, 80)) <= set(masked)
    assert len({sum(token < min(masked) + BLOCK for token in masked) for masked in drawn}) > 20


def test_only_long_answers_are_masked_by_blocks(parts):
    """A block mask of an answer of eighty tokens leaves its beginning: a uniform one hardly ever does."""
    task = small_task(parts, kinds={"many_events": 1.0}, text_tokens=2000, long_answers=1.0, block_masks=1.0)
    batch = task.collate([0, 1, 2, 3])
    for i, types in enumerate(batch["types"]):
        for number, type in enumerate(types, 1):
            own = batch["segment"][i] == number
            masked = (batch["loss_weight"][i][own] > 0).nonzero()[:, 0]
            if type == "caption" and masked[0] + BLOCK < len(batch["input_ids"][i][own]):
                rest = batch["loss_weight"][i][own][masked[0] + BLOCK :]
                assert (rest > 0).all()


def test_each_sentence_of_a_caption_is_labeled_with_its_shape(parts):
    """At its first token; a short answer is one sentence."""
    task = small_task(parts, kinds={"many_events": 1.0}, text_tokens=2000, long_answers=1.0, long_turns=2)
    batch = task.collate([0, 1, 2, 3])
    starts = batch["begins_sentence"].nonzero()
    assert len(starts) == len(batch["shape_labels"])
    tokenizer, long = task.processor.tokenizer, 0
    for (i, token), labels in zip(starts.tolist(), batch["shape_labels"], strict=True):
        type = batch["types"][i][int(batch["segment"][i, token]) - 1]
        if type in LONG_TYPES:
            the, color, shape = (tokenizer.decode([id]) for id in batch["input_ids"][i, token : token + 3].tolist())
            by_name = dict(zip(LABELS, labels.tolist(), strict=True))
            assert (the, color, shape) == ("the", COLORS[by_name["first_color"]], SHAPES[by_name["shape"]])
            long += 1
        else:
            assert batch["answer_length"][i, token] > 0
    assert long > 40


def test_the_names_of_new_shapes_weigh_more(parts):
    """In captions, the color and the shape of each shape's first sentence."""
    options = {"kinds": {"many_events": 1.0}, "text_tokens": 2000, "long_answers": 1.0}
    plain, weighted = (small_task(parts, **options, new_shapes=weight).collate([0, 1, 2, 3]) for weight in (1.0, 4.0))
    is_masked = plain["loss_weight"] > 0
    assert torch.equal(is_masked, weighted["loss_weight"] > 0)
    ratio = (weighted["loss_weight"] / plain["loss_weight"])[is_masked]
    assert set(ratio.round(decimals=3).tolist()) == {1.0, 4.0}
    ids = plain["input_ids"][is_masked][ratio > 2]
    assert torch.isin(ids, torch.tensor(sum(small_task(parts).writer.kinds.values(), []))).all()
