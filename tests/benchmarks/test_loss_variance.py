import json

import pytest
import torch

from vidlada_hf.modeling.objective_vidlada import draw_mask_probabilities

from .conftest import run


@pytest.mark.slow
def test_the_rates_part_of_the_losss_variance(tmp_path):
    script = run("loss_variance", "--draws", 3, "--types", "color", "--output", tmp_path / "variance.json")
    assert len(json.loads((tmp_path / "variance.json").read_text())["types"]["color"]["loss_by_rate"]) == script.BATCH

    generator = torch.Generator().manual_seed(0)
    losses, rates = {}, {}
    for sampling in ("independent", "antithetic", "stratified"):
        drawn = torch.stack(
            [draw_mask_probabilities(16, torch.device("cpu"), generator, sampling) for _ in range(8000)]
        )
        noise = torch.randn(drawn.shape, generator=generator)
        losses[sampling], rates[sampling] = drawn.square() + 0.3 * noise, drawn
    found = script.split_variance(losses["stratified"], rates["stratified"])
    plain = losses["independent"].mean(-1).var()
    for sampling in ("stratified", "antithetic"):  # the shares are what the variance of a whole batch's loss falls by
        assert 1 - losses[sampling].mean(-1).var() / plain == pytest.approx(found[sampling], abs=0.04)
    assert found["stratified"] == pytest.approx(0.497, abs=0.03)
