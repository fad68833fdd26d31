from tests.tiny_models import byte_tokenizer
from vidlada_hf.page.canvas_text import canvas_pieces

TOKENIZER = byte_tokenizer()
MASK = TOKENIZER.convert_tokens_to_ids("<|mdm_mask|>")
END = TOKENIZER.eos_token_id


def pieces(ids: list[int], before: list[int]):
    return canvas_pieces(ids, before, TOKENIZER, MASK, {END})


def test_known_new_and_masked() -> None:
    ids = TOKENIZER("red disc").input_ids
    before = [*ids[:2], MASK, *ids[3:5], MASK, MASK, MASK]
    now = [*ids[:5], MASK, *ids[6:]]
    assert pieces(now, before) == [("re", "known"), ("d", "new"), (" d", "known"), ("", "mask"), ("sc", "new")]
    assert pieces(now, now)[0] == ("red d", "known")
    assert pieces(ids, []) == [("red disc", "new")]


def test_nothing_behind_the_first_end() -> None:
    ids = TOKENIZER("a").input_ids
    assert pieces([*ids, MASK, END, MASK, *ids], []) == [("a", "new"), ("", "mask")]


def test_a_letter_of_several_tokens_is_whole() -> None:
    ids = TOKENIZER("née").input_ids
    assert len(ids) == 4 and pieces(ids, [MASK] * 4) == [("née", "new")]
