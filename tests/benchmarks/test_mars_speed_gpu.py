import pytest
import torch

from .conftest import load, run


@pytest.mark.slow
def test_speed_of_a_gpu_on_whatever_is_there(results):
    found = load(results, "mars_speed_gpu")["results"]
    assert {"full recompute", "official style", "mars", "interval", "autoregressive Llama"} <= found.keys()
    assert all(entry["summary"]["floor_seconds"] > 0 and entry["summary"]["seconds"] > 0 for entry in found.values())
    llama = found["autoregressive Llama"]["counts"]
    assert llama["tokens"] == 8 and 0 < llama["flops"] < found["full recompute"]["counts"]["flops"]


def test_without_a_gpu_its_benchmark_says_so():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit, match="torch sees none"):
        run("mars_speed_gpu")
