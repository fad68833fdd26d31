import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from tests.tiny_models import byte_tokenizer
from vidlada_hf.evaluation.picture import COLUMNS, answer_words, draw_denoising, draw_words, place_words


def test_an_answer_ends_at_its_end():
    tokenizer = byte_tokenizer()
    end = tokenizer.convert_tokens_to_ids("<|eot_id|>")
    a, b = tokenizer("ab").input_ids
    assert answer_words([a, b, end, a], tokenizer) == ["a", "b"]
    assert answer_words([end], tokenizer) == []


def test_words_are_set_in_lines_as_wide_as_the_picture():
    words = ["denoising"] * 30
    places, lines = place_words(words)
    assert lines == places[-1][0] + 1 > 1
    ends = [column + len(word) for word, (_, column) in zip(words, places, strict=True)]
    assert max(ends) <= COLUMNS and max(ends) + len("denoising") + 1 > COLUMNS
    assert len(set(places)) == len(words)


def test_a_step_shows_known_words_and_a_box_for_each_mask():
    axes = Figure().add_subplot()
    words = ["the", "bar", "moves"]
    draw_words(axes, 0.0, words, place_words(words)[0], [True, False, True, True], [False, False, True, True])
    assert [text.get_text() for text in axes.texts] == ["the", "moves"]
    assert axes.texts[0].get_color() != axes.texts[1].get_color()
    assert len(axes.patches) == 1


def test_the_picture_is_saved(tmp_path):
    tokenizer = byte_tokenizer()
    mask = tokenizer.convert_tokens_to_ids("<|mdm_mask|>")
    frames = np.zeros((3, 32, 32, 3), np.uint8)
    steps = [[mask] * 9, [mask] * 4 + tokenizer("moves").input_ids, tokenizer("bar moves").input_ids] * 20
    path = draw_denoising(frames, "What happens?", steps, tokenizer, mask, tmp_path / "new" / "picture.png")
    assert Image.open(path).size[0] > 500
