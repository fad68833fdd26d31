"""The plan against the bytes of a real `generate`, counted on a CPU, and against those of a GPU's allocator."""

from functools import cache

import pytest
import torch

from vidlada_hf.evaluation.cost_model import TextShape
from vidlada_hf.evaluation.memory import LiveBytes, count_kept_bytes
from vidlada_hf.evaluation.memory_plan import (
    GB,
    PRECISIONS,
    MemoryPlan,
    Workload,
    count_weights,
    largest_batch,
    parse_bytes,
    plan_table,
)
from vidlada_hf.evaluation.random_model import build_random_model
from vidlada_hf.modeling import text_model_vidlada
from vidlada_hf.modeling.cache_strategies_vidlada import CACHE_STRATEGIES, resolve_cache_strategy
from vidlada_hf.modeling.layer_functions_vidlada import LayerFunctions

CPU = torch.device("cpu")
TEXT = {
    "vocab_size": 64,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
}
WORK = Workload(frames=6, batch_size=2, text_tokens=40, max_new_tokens=8, block_length=8)


def model_of(dtype, device=CPU, **text):
    return build_random_model(TEXT | text, device, dtype)


def answer(model, strategy, work, **options):
    """The answers to so many questions, from pixels that are made here."""
    side, device = model.config.vision_config.image_size, model.device
    frames = work.batch_size * work.frames
    pixels = torch.zeros(frames, 3, side, side, dtype=model.dtype, device=device)
    video = torch.full((work.frames * model.model.tokens_per_frame,), model.config.video_token_id)
    prompt = torch.cat([torch.ones(work.text_tokens, dtype=torch.long), video])
    return model.generate(
        input_ids=prompt.expand(work.batch_size, -1).to(device),
        pixel_values_videos=pixels,
        num_frames_per_video=torch.tensor([work.frames] * work.batch_size),
        cache_strategy=strategy,
        max_new_tokens=work.max_new_tokens,
        block_length=work.block_length,
        max_denoising_steps=work.max_new_tokens // 4,
        **options,
    )


def counted(model, name, work):
    """(peak, kept) of a real run, in bytes."""
    strategy, kept = resolve_cache_strategy(name), []
    with LiveBytes() as live:
        answer(model, strategy, work, step_callback=lambda _: kept.append(count_kept_bytes(strategy)))
    return live.peak, max(kept)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Layers run as functions, not as modules, as they do on a GPU."""
    monkeypatch.setattr(text_model_vidlada, "layer_functions", lambda layer, _: LayerFunctions(layer, False))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CACHE_STRATEGIES)
def test_the_plan_is_what_a_run_allocates(as_on_a_gpu, name, dtype):
    model = model_of(getattr(torch, dtype))
    need = MemoryPlan(model.config, model.dtype).count(resolve_cache_strategy(name), WORK)
    peak, kept = counted(model, name, WORK)
    assert need.kept == pytest.approx(kept, rel=0.03, abs=10_000)
    assert need.kept + need.working == pytest.approx(peak, rel=0.05)


def test_without_layers_to_speak_of_the_tower_needs_most(as_on_a_gpu):
    """A wide tower before a narrow text model."""
    tower = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = build_random_model(TEXT | {"hidden_size": 32, "intermediate_size": 32}, CPU, torch.float32, tower=tower)
    work = Workload(frames=17, text_tokens=4, max_new_tokens=4, block_length=4)
    need = MemoryPlan(model.config, torch.float32).count(resolve_cache_strategy("none"), work)
    assert need.kept + need.working == pytest.approx(counted(model, "none", work)[0], rel=0.1)


def test_weights_are_those_of_a_model():
    for dtype in ("float32", "bfloat16"):
        model = model_of(getattr(torch, dtype))
        allocated = {
            weight.untyped_storage().data_ptr(): weight.untyped_storage().nbytes() for weight in model.parameters()
        }
        assert count_weights(model.config, PRECISIONS[dtype]) == sum(allocated.values())


def test_quantized_are_the_layers_of_the_text_model_alone():
    model = model_of(torch.bfloat16)
    layers = 8 * TextShape.of(model.config.text_config).layer_parameters
    plain, int8, nf4 = (count_weights(model.config, PRECISIONS[name]) for name in ("bfloat16", "int8", "bnb-nf4"))
    scales = 8 * 5 * (4 * 128 + 2 * 384 + 128)
    assert plain - int8 == layers - scales
    assert plain - nf4 == 2 * layers - layers // 64 * 36


def test_what_computes_with_quantized_matrices_is_not_captured_and_reads_one_whole():
    config = model_of(torch.bfloat16).config
    small = Workload(frames=0, text_tokens=1, max_new_tokens=8, block_length=8)
    plain, quantized = (
        MemoryPlan(config, torch.bfloat16, product).count(resolve_cache_strategy("mars"), small)
        for product in (None, PRECISIONS["int8"].product)
    )
    assert plain.graphs and not quantized.graphs
    assert quantized.working - plain.working >= 128 * 384 * 2 - 9 * 5 * 384 * 2


def test_the_largest_batch_is_the_largest_that_fits():
    plan = MemoryPlan(model_of(torch.bfloat16).config, torch.bfloat16)

    @cache
    def need(batch_size):
        return plan.count(resolve_cache_strategy("dual"), Workload(frames=2, batch_size=batch_size)).total

    assert largest_batch(need, need(5) + 1000) == 5
    assert largest_batch(need, need(1) - 1) == 0 and largest_batch(need, need(1)) == 1


def test_amounts_of_memory():
    assert (parse_bytes("24GB"), parse_bytes("24 GiB"), parse_bytes("0.5")) == (24 * GB, 24 << 30, 1 << 29)
    for wrong in ("24XB", "0GB", "many", "-1"):
        with pytest.raises(ValueError, match="write 24GB"):
            parse_bytes(wrong)


def test_a_line_for_each_precision_and_strategy():
    config = model_of(torch.bfloat16).config
    lines = plan_table(config, Workload(frames=2), 2 * GB, ["none", 'mars:{"anchors": 2}'], ["bfloat16"]).splitlines()
    assert lines[0].split()[-3:] == ["fits", "largest", "batch"] and len({*map(len, lines)}) == 1
    assert [line.split()[:2] for line in lines[1:]] == [["bfloat16", "none"], ["bfloat16", 'mars:{"anchors":']]
    assert all("yes" in line and line.endswith("64+") for line in lines[1:])
    with pytest.raises(ValueError, match="`precision` must be one of .*'bnb-nf4', got 'int3'"):
        plan_table(config, WORK, precisions=["int3"])


@pytest.mark.gpu
@pytest.mark.parametrize("name", CACHE_STRATEGIES)
def test_the_plan_is_what_the_allocator_of_a_gpu_reports(name):
    cuda = torch.device("cuda")
    sizes = {"hidden_size": 1024, "intermediate_size": 3072, "num_attention_heads": 8, "vocab_size": 8192}
    model = model_of(torch.bfloat16, cuda, **sizes)
    work = Workload(frames=16, batch_size=2)
    answer(model, resolve_cache_strategy(name), work)  # packs the weights, makes the memory of graphs
    need = MemoryPlan(model.config, torch.bfloat16).count(resolve_cache_strategy(name), work)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    answer(model, resolve_cache_strategy(name), work, cuda_graphs=False)
    allocated = torch.cuda.max_memory_allocated() - before
    assert 0.9 * allocated < need.kept + need.working < 1.15 * allocated
