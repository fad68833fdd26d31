import torch

from vidlada_hf.evaluation.decoding import EXACT, DecodingSetup
from vidlada_hf.evaluation.random_model import TINY_TEXT, build_random_model, random_denoiser, random_question

CPU = torch.device("cpu")


def test_a_frame_has_the_rows_of_the_8b_model():
    model = build_random_model(TINY_TEXT, CPU, torch.bfloat16)
    assert model.model.tokens_per_frame == 210 and model.dtype == torch.bfloat16
    question = random_question(model, 2)
    assert question.inputs["input_ids"].shape == (1, 2 * 210 + 40)
    assert question.features[0].shape == (420, 32) and question.features[0].dtype == torch.bfloat16


def test_the_whole_canvas_is_denoised_a_token_a_step_and_the_seed_says_what():
    answers = []
    for contender in (EXACT, EXACT, DecodingSetup("mars", {"visual_intervals": [1], "text_intervals": [1]})):
        model = build_random_model(TINY_TEXT, CPU, torch.float32, grid=4)
        denoiser, seen = random_denoiser(model, 2, 8, 4), []
        ids = denoiser.answer(random_question(model, 2), contender, lambda _, seen=seen: seen.append)
        assert ids.shape == (1, 8) and len(seen) == 8 and all(int(done.committed.sum()) == 1 for done in seen)
        answers.append(ids.tolist())
    assert answers[0] == answers[1] == answers[2]
