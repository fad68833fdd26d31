import pytest
import torch

from tests.tiny_models import tiny_model
from vidlada_hf.evaluation.flops import count_flops


def test_flops_of_a_forward_are_those_counted_by_hand():
    """Attention on the CPU included, which is a third of them here."""
    model = tiny_model().model.language_model
    tokens, hidden, mlp, layers = 50, 32, 48, 4
    linear = 2 * tokens * (4 * hidden * hidden + 3 * hidden * mlp)
    attention = 2 * 2 * tokens * tokens * hidden
    with torch.no_grad():
        counted = count_flops(lambda: model(inputs_embeds=torch.randn(1, tokens, hidden)))
    rotary = 2 * tokens * model.config.head_dim // 2  # a product in transformers 5.17, element-wise later
    assert counted - layers * (linear + attention) in (0, rotary)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_counted_with_and_without_a_mask(masked):
    query, key = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8)
    mask = torch.ones(5, 7, dtype=torch.bool) if masked else None
    with torch.no_grad():
        flops = count_flops(lambda: torch.nn.functional.scaled_dot_product_attention(query, key, key, mask))
    assert flops == 2 * 2 * 3 * 5 * 7 * (8 + 8)
