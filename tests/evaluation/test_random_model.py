import torch

from vidlada_hf.evaluation.decoding import EXACT, DecodingSetup
from vidlada_hf.evaluation.random_model import (
    TINY_TEXT,
    build_random_model,
    encode_random_question,
    full_canvas_runner,
)

CPU = torch.device("cpu")


def test_a_frame_has_the_tokens_of_the_8b_model():
    model = build_random_model(TINY_TEXT, CPU, torch.bfloat16)
    assert model.model.tokens_per_frame == 210 and model.dtype == torch.bfloat16
    batch = encode_random_question(model, 2)
    assert batch.inputs["input_ids"].shape == (1, 2 * 210 + 40)
    assert batch.features[0].shape == (420, 32) and batch.features[0].dtype == torch.bfloat16


def test_the_whole_canvas_is_denoised_a_token_a_step_and_the_seed_says_what():
    answers = []
    for setup in (EXACT, EXACT, DecodingSetup("mars", {"visual_intervals": [1], "text_intervals": [1]})):
        model = build_random_model(TINY_TEXT, CPU, torch.float32, grid=4)
        runner, outputs = full_canvas_runner(model, 2, 8, 4), []
        ids = runner.generate(encode_random_question(model, 2), *setup.build(), outputs.append)
        assert ids.shape == (1, 8) and len(outputs) == 8 and all(int(o.committed.sum()) == 1 for o in outputs)
        answers.append(ids.tolist())
    assert answers[0] == answers[1] == answers[2]
