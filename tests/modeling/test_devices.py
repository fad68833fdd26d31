"""Devices without float64, and inputs on another device than the model's."""

import pytest
import torch
from torch.overrides import TorchFunctionMode

from vidlada_hf.modeling.cache_strategies_vidlada import CACHE_STRATEGIES
from vidlada_hf.modeling.devices_vidlada import exact_dtype, execution_device
from vidlada_hf.modeling.objective_vidlada import IGNORED
from vidlada_hf.modeling.unmasking_vidlada import UNMASKING_STRATEGIES

from ..clips import noise
from ..tiny_models import build_tiny


class NoFloat64(TorchFunctionMode):
    """The CPU as a device that has no float64."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dtype == torch.float64:
            raise TypeError(f"`{getattr(function, '__name__', function)}` makes a float64 tensor")
        return result


@pytest.fixture(scope="module")
def tiny():
    return build_tiny()


@pytest.fixture(scope="module")
def inputs(tiny):
    question = [{"type": "video", "video": noise(3)}, {"type": "text", "text": "What?"}]
    return tiny[1].apply_chat_template(
        [{"role": "user", "content": question}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )


def test_a_device_says_what_it_has():
    assert exact_dtype(torch.device("cpu")) == torch.float64
    with NoFloat64():
        assert exact_dtype(torch.device("cpu")) == torch.float32


@pytest.mark.parametrize(
    "settings",
    [
        *({"cache_strategy": name} for name in CACHE_STRATEGIES),
        *({"unmasking": name} for name in UNMASKING_STRATEGIES),
        *({"temperature": 0.7, "seed": 1}, {"remasking": "random", "seed": 1}, {"cfg_scale": 1.0}),
        {"return_dict_in_generate": True},
    ],
    ids=str,
)
def test_nothing_is_float64_where_there_is_none(tiny, inputs, settings):
    with NoFloat64():
        tiny[0].generate(**inputs, max_new_tokens=8, block_length=4, **settings)


def test_greedy_tokens_are_the_same_there(tiny, inputs):
    expected = tiny[0].generate(**inputs, max_new_tokens=8)
    with NoFloat64():
        assert torch.equal(tiny[0].generate(**inputs, max_new_tokens=8), expected)


@pytest.mark.parametrize("choices", [["a", "b"], ["one", "two of them"]])
def test_choices_are_scored_there(tiny, inputs, choices):
    model, processor = tiny
    expected = model.score_choices(**inputs, choices=choices, tokenizer=processor.tokenizer, num_draws=2)
    with NoFloat64():
        scores = model.score_choices(**inputs, choices=choices, tokenizer=processor.tokenizer, num_draws=2)
    assert scores.dtype == torch.float32 and expected.dtype == torch.float64
    torch.testing.assert_close(scores.double(), expected, rtol=1e-4, atol=1e-4)


def test_weights_that_hooks_bring_say_where_they_are_used(inputs):
    accelerate = pytest.importorskip("accelerate")
    model, _ = build_tiny()
    expected = model.generate(**inputs, max_new_tokens=4)
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    embeddings = model.get_input_embeddings()
    assert embeddings.weight.device.type == "meta" and execution_device(embeddings) == torch.device("cpu")
    assert torch.equal(model.generate(**inputs, max_new_tokens=4), expected)


def labeled(inputs) -> dict:
    """The question's last tokens as labels, with all that may come with them."""
    labels = inputs["input_ids"].clone()
    labels[:, :-3] = IGNORED
    masks = {"masked": labels != IGNORED, "mask_probabilities": torch.ones(1), "example_weights": torch.ones(1)}
    positions = {"position_ids": torch.arange(labels.shape[1])[None]}
    return dict(inputs) | {"attention_mask": torch.ones_like(labels), "labels": labels} | masks | positions


def test_a_head_elsewhere_makes_the_loss_there(inputs):
    """As `device_map="auto"` may place it."""
    hooks = pytest.importorskip("accelerate.hooks")
    model, _ = build_tiny()
    model.train()
    hooks.add_hook_to_module(model.lm_head.to("meta"), hooks.AlignDevicesHook("meta"))
    outputs = model(**labeled(inputs))
    assert outputs.loss.device.type == outputs.masked_logits.device.type == "meta"


@pytest.mark.gpu
def test_inputs_with_labels_are_moved_to_the_model(inputs):
    model, _ = build_tiny()
    batch = labeled(inputs)
    expected = model.train()(**batch).loss
    model.cuda()
    for device in ("cpu", "cuda"):
        moved = {name: value.to(device) for name, value in batch.items()}
        torch.testing.assert_close(model(**moved).loss.cpu(), expected, rtol=1e-3, atol=1e-3)
    moved["labels"] = moved["labels"].cpu()
    torch.testing.assert_close(model(**moved).loss.cpu(), expected, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        model.eval()
        predictions = model(**dict(inputs), labels=batch["labels"]).predictions
    assert predictions.shape == batch["labels"].shape


@pytest.mark.gpu
def test_inputs_are_moved_to_the_model(inputs):
    model, processor = build_tiny()
    model.cuda()
    moved = model.generate(**inputs.to("cuda"), max_new_tokens=4)
    assert torch.equal(model.generate(**inputs.to("cpu"), max_new_tokens=4).cuda(), moved)
    cache = model.encode_video(**inputs)
    assert cache.keys[0].is_cuda
    choices = {"choices": ["a", "b"], "tokenizer": processor.tokenizer}
    assert torch.equal(
        model.score_choices(**inputs, **choices).cpu(), model.score_choices(**inputs.to("cuda"), **choices).cpu()
    )
    assert torch.isfinite(model(**inputs.to("cpu")).logits).all()
