import numpy as np
import torch

from moving_shapes import VOCABULARY, MovingShapes
from moving_shapes.train.tiny_model import build_tiny
from vidlada_hf.evaluation.decoding import answer_questions


def test_the_tokenizer_knows_every_word_and_writes_texts_back():
    _, processor = build_tiny()
    tokenizer = processor.tokenizer
    for text in ("the red circle moves left. it turns blue?", "(a) red (b) blue", " ".join(VOCABULARY)):
        known = text.replace("it ", "")
        ids = tokenizer(known).input_ids
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == known.replace(" ?", "?").replace(" .", ".").replace(" ,", ",")
    assert tokenizer("unicorn").input_ids == [tokenizer.unk_token_id]


def test_it_is_the_8bs_architecture_and_fits_in_the_package():
    model, _ = build_tiny()
    assert model.config.newline_position == "grid" and model.model.tokens_per_frame == 20
    assert len(model.model.language_model.layers) == 8
    assert 4 * sum(p.numel() for p in model.parameters()) < 12e6


def test_the_same_seed_gives_the_same_weights():
    (first, _), (again, _), (other, _) = build_tiny(1), build_tiny(1), build_tiny(2)
    assert torch.equal(first.lm_head.weight, again.lm_head.weight)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_untrained_it_answers_in_words():
    model, processor = build_tiny()
    questions = [example.as_question() for example in MovingShapes("test", 3)]
    (answers,) = answer_questions(model.eval(), processor, questions, max_new_tokens=8)
    assert len(answers) == 3 and all("<|" not in answer for answer in answers)


def test_a_prompt_holds_no_system_message():
    _, processor = build_tiny()
    conversation = [{"role": "user", "content": [{"type": "video", "video": np.zeros((2, 64, 64, 3), np.uint8)}]}]
    inputs = processor.apply_chat_template(conversation, tokenize=True, return_dict=True, return_tensors="pt")
    assert inputs["input_ids"].shape == (1, 5 + 40)
