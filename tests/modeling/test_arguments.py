"""Checks of arguments that several functions share."""

import pytest
import torch

from vidlada_hf.modeling.arguments_vidlada import check_positions

from ..tiny_models import tiny_model


def test_positions_are_counted_without_padding():
    attended = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])
    check_positions(attended, behind=5, limit=8)
    check_positions(torch.ones(1, 4), behind=4, limit=8)
    with pytest.raises(
        ValueError, match="prompt takes 3 tokens and the answer up to 6 .* has 8 positions: sample fewer"
    ):
        check_positions(attended, behind=6, limit=8)


def test_generate_fills_the_positions_and_no_more():
    model = tiny_model(text_config={"max_position_embeddings": 12})
    ids = torch.full((1, 8), 5)
    assert model.generate(ids, max_new_tokens=4).shape == (1, 12)
    assert model.generate(ids, max_new_tokens=2, suffix=[6, 6]).shape == (1, 12)
    for settings in ({"max_new_tokens": 5}, {"max_new_tokens": 4, "suffix": [6]}):
        with pytest.raises(ValueError, match="the model has 12 positions"):
            model.generate(ids, **settings)
    with pytest.raises(ValueError, match="the model has 12 positions"):
        model.score_choices(ids, [[5, 5, 5, 5]], end_token_id=2)
