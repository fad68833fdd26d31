import numpy as np
from PIL import Image

from moving_shapes.train.tiny_model import word_tokenizer
from vidlada_hf.evaluation.picture import MASK, draw_denoising, write_canvas


def test_a_canvas_is_written_up_to_the_end_of_the_answer():
    tokenizer = word_tokenizer()
    mask, end = tokenizer.convert_tokens_to_ids(["<|mdm_mask|>", "<|eot_id|>"])
    red, circle = tokenizer("red circle").input_ids
    assert write_canvas([red, mask, mask, circle, end, red], tokenizer, mask) == f"red {MASK}{MASK} circle"
    assert write_canvas([end], tokenizer, mask) == ""


def test_the_picture_is_saved(tmp_path):
    tokenizer = word_tokenizer()
    frames = np.zeros((3, 32, 32, 3), np.uint8)
    steps = [[2] * 8, [2] * 4 + tokenizer("the red circle moves").input_ids] * 20
    path = draw_denoising(frames, "What happens?", steps, tokenizer, 2, tmp_path / "new" / "picture.png")
    assert Image.open(path).size[0] > 500
