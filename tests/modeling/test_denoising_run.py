"""A model that gives no numbers: `generate` says so, whatever it would have answered."""

import pytest
import torch

from vidlada_hf.modeling.denoising_run_vidlada import DenoisingRun

from ..tiny_models import byte_tokenizer, tiny_model

IDS = torch.tensor([[5, 6, 7], [8, 9, 10]])


@pytest.fixture
def broken():
    model = tiny_model()
    with torch.no_grad():
        model.model.language_model.layers[1].mlp.down_proj.weight[0, 0] = torch.nan
    return model


@pytest.mark.parametrize(
    "settings",
    [
        *({}, {"eos_token_id": 5}, {"temperature": 1.0}, {"remasking": "random"}, {"cfg_scale": 1.0}),
        *({"unmasking": "threshold"}, {"cache_strategy": "mars"}, {"cache_strategy": "prefix", "block_length": 4}),
    ],
    ids=str,
)
def test_weights_that_are_not_finite_are_named(broken, settings):
    with pytest.raises(
        ValueError, match=r"logits for example 0 are not finite \(NaN or infinite\): weights are damaged"
    ):
        broken.generate(IDS, max_new_tokens=8, **settings)


def test_they_are_found_at_once_where_stops_are_looked_for(broken, monkeypatch):
    steps = []
    commit = DenoisingRun.commit
    monkeypatch.setattr(DenoisingRun, "commit", lambda run, *args: steps.append(1) or commit(run, *args))
    with pytest.raises(ValueError, match="not finite"):
        broken.generate(IDS, max_new_tokens=64, eos_token_id=5)
    assert len(steps) == 1


def test_a_processor_that_leaves_no_token_is_found_by_example():
    model = tiny_model()

    def leave_nothing(ids, scores):
        scores = scores.clone()
        scores[len(scores) // 2 :] = -torch.inf
        return scores

    with pytest.raises(ValueError, match="example 1 are not finite.*a logits processor left no token"):
        model.generate(IDS, max_new_tokens=4, logits_processor=[leave_nothing])


def test_positions_that_are_not_asked_for_may_be_anything():
    model = tiny_model()
    canvas = torch.tensor([1, 7, 1, 7])  # masks and given tokens

    def spoil_given(ids, scores):
        scores = scores.clone().view(2, 4, -1)
        scores[:, [1, 3]] = torch.nan
        return scores.flatten(0, 1)

    expected = model.generate(IDS, canvas=canvas)
    assert torch.equal(model.generate(IDS, canvas=canvas, logits_processor=[spoil_given]), expected)


@pytest.mark.parametrize("choices", [["a", "b"], ["ab", "c"]])
def test_choices_without_numbers_have_no_scores(broken, choices):
    ids = [[5 + i for i in range(len(choice))] for choice in choices]
    with pytest.raises(ValueError, match="not finite"):
        broken.score_choices(IDS, ids, end_token_id=2, num_draws=2)


def test_control_tokens_in_choices_are_text():
    from vidlada_hf.modeling.scoring_vidlada import encode_choice

    tokenizer = byte_tokenizer()
    assert len(encode_choice("<|eot_id|>", tokenizer)) == len("<|eot_id|>")
    assert encode_choice([tokenizer.convert_tokens_to_ids("<|eot_id|>")], tokenizer) == [261]
    with pytest.raises(ValueError, match="The choice '.*' holds half a character"):
        encode_choice("a\ud800", tokenizer)
