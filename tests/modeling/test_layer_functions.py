"""A layer as functions: the same numbers as its modules, compiled once, and only where its modules are plain."""

import copy
import gc

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from vidlada_hf import VidLaDAForConditionalGeneration
from vidlada_hf.modeling import layer_functions_vidlada
from vidlada_hf.modeling.cache_strategies_vidlada import CACHE_STRATEGIES
from vidlada_hf.modeling.layer_functions_vidlada import (
    LayerFunctions,
    compiled_layers,
    is_plain,
    layer_functions,
    pack,
    weights_of,
)

from ..tiny_models import batch, example, tiny_model


def text_model_and_states(**text):
    """A text model in float64, hidden states (2, 5, 32) and their rotary tables."""
    text_model = tiny_model(text_config=text).model.language_model.double()
    states = torch.randn(2, 5, 32, dtype=torch.float64)
    return text_model, states, text_model.rotary_emb(states, torch.arange(5)[None].expand(2, -1))


def pack_layer(layer) -> None:
    attention, mlp = layer.self_attn, layer.mlp
    assert pack(attention, (attention.q_proj, attention.k_proj, attention.v_proj))
    assert pack(mlp, (mlp.gate_proj, mlp.up_proj))


def run_functions(layer, states, tables) -> torch.Tensor:
    functions = LayerFunctions(layer, compiles=False)
    query, key, value = functions.enter(states, *tables)
    return functions.leave(states, layer.self_attn.attend(query, key, value, None)[0])


# --- the same numbers ------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("key_value_heads", [4, 2])
def test_the_functions_are_the_modules(packed, key_value_heads):
    text_model, states, tables = text_model_and_states(num_key_value_heads=key_value_heads)
    layer = text_model.layers[1]
    expected = layer(states, tables)
    if packed:
        pack_layer(layer)
        assert torch.equal(layer(states, tables), expected)
    assert is_plain(layer, states)
    # Llama's norm rounds to float32 on its way.
    torch.testing.assert_close(run_functions(layer, states, tables), expected, atol=1e-5, rtol=1e-3)


@torch.no_grad()
def test_many_tokens_take_separate_products(monkeypatch):
    text_model, states, tables = text_model_and_states()
    layer = text_model.layers[1]
    expected = run_functions(layer, states, tables)
    pack_layer(layer)
    taken = []

    def note(*arguments):
        taken.append(len(weights_of(*arguments)))
        return weights_of(*arguments)

    monkeypatch.setattr(layer_functions_vidlada, "weights_of", note)
    for most, counts in ((1024, [1, 1]), (9, [3, 2])):
        monkeypatch.setattr(layer_functions_vidlada, "PACKED_TOKENS", most)
        torch.testing.assert_close(run_functions(layer, states, tables), expected)
        assert taken == counts
        taken.clear()


@pytest.mark.slow
def test_compiled_layers_give_the_same_tokens_and_are_compiled_once():
    model = tiny_model()
    inputs = batch(example(model, 4), example(model, 1, after=9, seed=2))
    settings = {"max_new_tokens": 12, "block_length": 4}
    torch._dynamo.reset()
    layer_functions_vidlada.compiled.cache_clear()
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for name in CACHE_STRATEGIES:
        expected = model.generate(**inputs, cache_strategy=name, **settings)
        assert torch.equal(model.generate(**inputs, cache_strategy=name, compile=True, **settings), expected)
    # Two functions, for all layers, all strategies and any number of tokens; once more where batches are not flat.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] - before <= 4


def test_that_layers_are_compiled_is_said_once(caplog, monkeypatch):
    layer_functions_vidlada.compiled.cache_clear()
    monkeypatch.setattr(torch, "compile", lambda function: function)
    monkeypatch.setattr(layer_functions_vidlada.logger, "propagate", True, raising=False)
    model = tiny_model()
    try:
        with caplog.at_level("WARNING", logger=layer_functions_vidlada.logger.name):
            for _ in range(2):
                model.generate(**example(model, 1), max_new_tokens=2, compile=True)
    finally:
        layer_functions_vidlada.compiled.cache_clear()
    assert sum("compiled" in record.getMessage() for record in caplog.records) <= 1


@torch.no_grad()
def test_nothing_is_taken_apart_without_a_gpu_or_in_training():
    text_model, states, _ = text_model_and_states()
    layer = text_model.layers[0]
    assert layer_functions(layer, states) is None
    with compiled_layers(True):
        assert layer_functions(layer, states) is not None
        with torch.enable_grad():
            assert layer_functions(layer, states) is None
        assert layer_functions(layer.train(), states) is None
    assert layer_functions(layer.eval(), states) is None


# --- only plain modules ----------------------------------------------------------------------------------------------


def quantized(layer) -> None:
    class Quantized(nn.Linear):
        pass

    layer.mlp.gate_proj.__class__ = Quantized


def subclassed(layer) -> None:
    class Subclass(torch.Tensor):
        pass

    weight = layer.self_attn.k_proj.weight
    layer.self_attn.k_proj.weight = nn.Parameter(weight.detach().as_subclass(Subclass), requires_grad=False)


HANDLES: list = []
CHANGES = {
    "a hook on all modules": lambda layer: HANDLES.append(
        nn.modules.module.register_module_forward_hook(lambda *_: None)
    ),
    "another class of linear, as bitsandbytes has": quantized,
    "another class of weight, as torchao and tensor parallelism have": subclassed,
    "a bias": lambda layer: setattr(layer.self_attn, "v_proj", nn.Linear(32, 32, bias=True).double()),
    "another dtype": lambda layer: layer.mlp.up_proj.float(),
    "another device": lambda layer: layer.self_attn.o_proj.to("meta"),
    "a hook": lambda layer: layer.mlp.register_forward_hook(lambda *_: None),
    "a hook before, as tensor parallelism has": lambda layer: layer.mlp.down_proj.register_forward_pre_hook(
        lambda *_: None
    ),
    "a replaced forward, as offloading has": lambda layer: setattr(layer.mlp, "forward", layer.mlp.forward),
    "another norm": lambda layer: setattr(layer, "input_layernorm", nn.LayerNorm(32).double()),
    "another MLP": lambda layer: (
        setattr(layer, "mlp", copy.copy(layer.mlp))
        or setattr(layer.mlp, "__class__", type("Other", (type(layer.mlp),), {}))
    ),
}


@torch.no_grad()
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_plain_runs_its_modules(change):
    text_model, states, _ = text_model_and_states()
    layer = text_model.layers[1]
    assert is_plain(layer, states)
    CHANGES[change](layer)
    assert not is_plain(layer, states)
    while HANDLES:
        HANDLES.pop().remove()


@torch.no_grad()
def test_adapters_run_their_modules_and_merged_ones_do_not():
    model = tiny_model()
    inputs = example(model, 2)
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj", "up_proj"], init_lora_weights=False))
    layers, states = model.model.language_model.layers, torch.zeros(1, 1, 32)
    assert not any(is_plain(layer, states) for layer in layers)
    expected = adapted.generate(**inputs, max_new_tokens=8)
    merged = adapted.merge_and_unload().eval()
    assert all(is_plain(layer, states) for layer in merged.model.language_model.layers)
    assert torch.equal(merged.generate(**inputs, max_new_tokens=8), expected)


@torch.no_grad()
def test_attentions_are_returned_and_leave_the_layers_plain():
    model = tiny_model()
    text_model = model.model.language_model
    text_model.set_attn_implementation("eager")
    inputs, states = torch.randn(1, 5, 32), torch.zeros(1, 1, 32)
    with compiled_layers(True):
        assert len(text_model(inputs_embeds=inputs, output_attentions=True).attentions) == 4
    assert all(is_plain(layer, states) for layer in text_model.layers)


# --- weights in one buffer -------------------------------------------------------------------------------------------


def packed_model() -> VidLaDAForConditionalGeneration:
    model = tiny_model()
    for layer in model.model.language_model.layers:
        pack_layer(layer)
    return model


def is_packed(model) -> bool:
    attentions = [layer.self_attn for layer in model.model.language_model.layers]
    return all(len(weights_of(a, (a.q_proj, a.k_proj, a.v_proj))) == 1 for a in attentions)


def test_packing_keeps_names_values_and_parameters():
    model, plain = tiny_model(), tiny_model()
    parameters = dict(model.named_parameters())
    for layer in model.model.language_model.layers:
        pack_layer(layer)
        assert not pack(layer.mlp, (layer.mlp.gate_proj, layer.mlp.up_proj))  # is already
    assert is_packed(model) and not is_packed(plain)
    assert all(parameter is parameters[name] for name, parameter in model.named_parameters())
    assert all(torch.equal(parameter, parameters[name]) for name, parameter in plain.named_parameters())
    sizes = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in parameters.values()}
    assert sum(sizes.values()) == sum(p.nbytes for p in parameters.values())  # nobody shares a storage


def test_a_packed_model_is_saved_and_loaded(tmp_path):
    model = packed_model()
    inputs = example(model, 2)
    expected = model.generate(**inputs, max_new_tokens=8)
    model.save_pretrained(tmp_path)
    loaded = VidLaDAForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert torch.equal(loaded.generate(**inputs, max_new_tokens=8), expected)


def test_a_packed_model_is_trained_and_loaded_in_place():
    model = packed_model()
    attention = model.model.language_model.layers[0].self_attn
    model.load_state_dict(tiny_model(seed=5).state_dict())
    assert is_packed(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = attention.k_proj.weight.detach().clone()
    attention.k_proj(torch.ones(1, 32)).sum().backward()
    optimizer.step()
    assert is_packed(model) and not torch.equal(attention.k_proj.weight, before)
    (buffer,) = weights_of(attention, (attention.q_proj, attention.k_proj, attention.v_proj))
    assert torch.equal(buffer[32:64], attention.k_proj.weight)


def test_packing_in_inference_mode_does_not_spoil_the_weights():
    model = tiny_model()
    with torch.inference_mode():
        for layer in model.model.language_model.layers:
            pack_layer(layer)
    loss = model(input_ids=torch.tensor([[3, 4, 5]])).logits.sum()
    loss.backward()
    assert is_packed(model) and model.model.language_model.layers[0].self_attn.k_proj.weight.grad is not None


def test_parts_of_somebodys_buffer_stay_there():
    attention = tiny_model().model.language_model.layers[0].self_attn
    linears = (attention.q_proj, attention.k_proj, attention.v_proj)
    flat = torch.cat([linear.weight.data.flatten() for linear in linears])
    for linear, part in zip(linears, flat.split(1024), strict=True):
        linear.weight.data = part.view(32, 32)
    assert not pack(attention, linears)
    flat.zero_()
    assert not any(linear.weight.any() for linear in linears)


@pytest.mark.parametrize("move", [lambda m: m.double(), copy.deepcopy, lambda m: m.to("meta")])
def test_who_moves_or_copies_a_packed_model_keeps_no_buffer(move):
    model = move(packed_model())
    assert not is_packed(model)
    attention = model.model.language_model.layers[0].self_attn
    assert attention.__dict__.get("_packed_weight") is None


def test_a_replaced_weight_takes_its_own_product():
    model = packed_model()
    attention = model.model.language_model.layers[0].self_attn
    attention.v_proj.weight = nn.Parameter(torch.zeros(32, 32))
    assert len(weights_of(attention, (attention.q_proj, attention.k_proj, attention.v_proj))) == 3
    assert "_packed_weight" not in attention.__dict__  # and nobody keeps the buffer


# --- on a GPU --------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@torch.no_grad()
def test_on_a_gpu_layers_are_packed_and_give_what_a_cpu_gives():
    model = tiny_model()
    inputs = example(model, 4)
    expected = {name: model.generate(**inputs, cache_strategy=name, max_new_tokens=8) for name in CACHE_STRATEGIES}
    model = model.to("cuda")
    moved = {name: value.to("cuda") for name, value in inputs.items()}
    for name, tokens in expected.items():
        assert torch.equal(model.generate(**moved, cache_strategy=name, max_new_tokens=8).cpu(), tokens)
    assert is_packed(model)
    memory = torch.cuda.memory_allocated()
    model.to("cpu")
    gc.collect()
    assert torch.cuda.memory_allocated() < memory / 2 and not is_packed(model)
