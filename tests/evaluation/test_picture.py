import numpy as np
from PIL import Image

from tests.tiny_models import byte_tokenizer
from vidlada_hf.evaluation.picture import MASK, draw_denoising, write_canvas


def test_a_canvas_is_written_up_to_the_end_of_the_answer():
    tokenizer = byte_tokenizer()
    mask, end = tokenizer.convert_tokens_to_ids(["<|mdm_mask|>", "<|eot_id|>"])
    a, b = tokenizer("ab").input_ids
    assert write_canvas([a, mask, mask, b, end, a], tokenizer, mask) == f"a {MASK}{MASK} b"
    assert write_canvas([end], tokenizer, mask) == ""


def test_the_picture_is_saved(tmp_path):
    tokenizer = byte_tokenizer()
    mask = tokenizer.convert_tokens_to_ids("<|mdm_mask|>")
    frames = np.zeros((3, 32, 32, 3), np.uint8)
    steps = [[mask] * 8, [mask] * 4 + tokenizer("moves").input_ids] * 20
    path = draw_denoising(frames, "What happens?", steps, tokenizer, mask, tmp_path / "new" / "picture.png")
    assert Image.open(path).size[0] > 500
