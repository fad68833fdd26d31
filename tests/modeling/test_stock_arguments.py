"""What stock callers pass to `generate`: taken where it means nothing here, refused by name where it would."""

import json

import pytest
import torch
from transformers import GenerationConfig

from vidlada_hf.modeling.generation_config_vidlada import VidLaDAGenerationConfig

from ..tiny_models import tiny_model

IDS = torch.tensor([[5, 6, 7]])


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def answer(model, **arguments):
    return model.generate(IDS, max_new_tokens=4, **arguments).tolist()


def test_what_means_nothing_here_is_taken(model):
    stock = {
        **{"use_cache": True, "synced_gpus": False, "num_beams": 1, "num_return_sequences": 1, "do_sample": False},
        **{"top_p": None, "top_k": None, "temperature": None, "repetition_penalty": 1.0, "length_penalty": 1.0},
        **{"max_length": None, "min_length": 0, "output_scores": False, "past_key_values": None, "max_time": None},
        **{"assistant_model": None, "prefix_allowed_tokens_fn": None, "bad_words_ids": None, "early_stopping": False},
    }
    expected = answer(model)
    assert answer(model, **stock) == expected
    for name, value in stock.items():
        assert answer(model, **{name: value}) == expected
    assert answer(model, use_cache=False, synced_gpus=True, top_k=0, top_p=1.0) == expected


@pytest.mark.parametrize(
    "stock",
    [
        *({"top_k": 5}, {"top_p": 0.9}, {"min_p": 0.1}, {"num_beams": 2}, {"num_return_sequences": 2}),
        *({"repetition_penalty": 1.2}, {"no_repeat_ngram_size": 3}, {"min_new_tokens": 2}, {"output_scores": True}),
        *({"past_key_values": object()}, {"bad_words_ids": [[3]]}, {"max_time": 1.0}, {"assistant_model": object()}),
        *({"cache_implementation": "static"}, {"prefix_allowed_tokens_fn": print}, {"top_k": torch.tensor([1, 2])}),
    ],
    ids=lambda stock: next(iter(stock)),
)
def test_what_would_mean_something_is_refused_by_name(model, stock):
    with pytest.raises(ValueError, match=f"`{next(iter(stock))}=.* belongs to autoregressive decoding"):
        answer(model, **stock)


def test_processes_that_wait_for_each_other_are_refused(model, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(ValueError, match="`synced_gpus=True`.*Processes end their answers at different steps"):
        answer(model, synced_gpus=True)


def test_do_sample_says_what_temperature_says(model):
    greedy, drawn = answer(model), answer(model, temperature=3.0, seed=1)
    assert greedy != drawn
    assert answer(model, do_sample=True, temperature=3.0, seed=1) == drawn
    assert answer(model, do_sample=False, temperature=1.0) == greedy  # what stock callers leave it at
    drawing = VidLaDAGenerationConfig(max_new_tokens=4, temperature=3.0, suppress_tokens=[0], pad_token_id=0)
    assert answer(model, do_sample=False, generation_config=drawing) == greedy
    with pytest.raises(ValueError, match="`do_sample=True` draws by a `temperature` above 0: give one"):
        answer(model, do_sample=True)
    with pytest.raises(ValueError, match="`do_sample=False` takes the most probable.*`temperature=0.7` draws"):
        answer(model, do_sample=False, temperature=0.7)


def test_a_config_that_says_do_sample_is_met_as_the_argument_is(model, tmp_path):
    greedy = answer(model)
    stock = GenerationConfig(do_sample=False, temperature=1.0, suppress_tokens=[0], pad_token_id=0)
    assert answer(model, generation_config=stock) == greedy
    with pytest.raises(ValueError, match="`do_sample=False` takes the most probable"):
        answer(model, generation_config=GenerationConfig(do_sample=False, temperature=20.0))
    with pytest.raises(ValueError, match="give one"):
        answer(model, generation_config=GenerationConfig(do_sample=True))
    for name, value in (("num_beams", 4), ("min_new_tokens", 8), ("max_length", 8)):
        with pytest.raises(ValueError, match=f"`{name}={value}"):
            answer(model, generation_config=GenerationConfig(**{name: value}))


def test_a_stored_file_that_says_do_sample_false_or_null_is_greedy(tmp_path, caplog):
    for fields in ({"do_sample": False, "temperature": 30.0}, {"temperature": None, "max_new_tokens": None}):
        (tmp_path / "generation_config.json").write_text(json.dumps(fields))
        stored = VidLaDAGenerationConfig.from_pretrained(tmp_path)
        assert (stored.temperature, stored.max_new_tokens) == (0.0, 128)
    (tmp_path / "generation_config.json").write_text(json.dumps({"do_sample": True}))
    VidLaDAGenerationConfig.from_pretrained(tmp_path)
    assert "nothing is drawn" in caplog.text


def test_none_set_on_a_config_is_the_default(model):
    stored = VidLaDAGenerationConfig(max_new_tokens=4, suppress_tokens=[0], pad_token_id=0)
    stored.temperature = stored.unmask_threshold = None
    assert model.generate(IDS, generation_config=stored).tolist() == answer(model)


def test_what_processors_and_forward_say_besides_is_taken(model):
    besides = {"inputs_embeds": None, "position_ids": None, "labels": None, "mm_token_type_ids": torch.zeros_like(IDS)}
    assert answer(model, **besides) == answer(model)
    with pytest.raises(ValueError, match="max_new_token"):
        model.generate(IDS, max_new_token=None)


def test_none_leaves_a_setting_as_it_is_stored(model):
    stored = VidLaDAGenerationConfig(max_new_tokens=2, block_length=1, pad_token_id=0)
    settings, unused = model._prepare_generation_config(
        stored, max_new_tokens=None, temperature=None, block_length=None
    )
    assert (settings.max_new_tokens, settings.temperature, settings.block_length, unused) == (2, 0.0, None, {})


def test_a_stock_config_warns_of_what_means_something_only(caplog):
    VidLaDAGenerationConfig.of(GenerationConfig(max_new_tokens=3, use_cache=True, num_beams=1, top_p=1.0))
    assert not caplog.text
