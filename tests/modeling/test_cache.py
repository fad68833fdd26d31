import pytest
import torch

from vidlada_hf.modeling.cache_vidlada import DenoisingCache, NoCache, SequenceLayout, Step, resolve_cache_strategy

from .tiny import batch, example, tiny_model


def layout(rows: int, canvas: slice) -> SequenceLayout:
    return SequenceLayout(torch.arange(rows)[None], None, torch.full((1, rows), -1), canvas)


@torch.no_grad()
def test_none_is_the_whole_model():
    model = tiny_model()
    inputs = example(model, 2)
    embeddings = model.model.merge_features(**inputs)
    rows = slice(embeddings.shape[1] - 3, embeddings.shape[1])
    cache = NoCache()
    cache.begin(layout(embeddings.shape[1], rows))
    hidden_states = cache.denoise(model.model.language_model, embeddings, Step(0, 0, 0, rows))
    torch.testing.assert_close(model.lm_head(hidden_states), model(**inputs).logits[:, -3:])


@torch.no_grad()
def test_layers_and_rows_can_be_run_piece_by_piece():
    """What a strategy builds on: depth by depth, and rows against keys that it kept."""
    model = tiny_model()
    text = model.model.language_model
    embeddings = model.model.merge_features(**example(model, 2))
    expected = text(inputs_embeds=embeddings).last_hidden_state

    class Keep(DenoisingCache):
        """Stores all keys and values in the first pass; the second computes few rows against them."""

        def __init__(self) -> None:
            self.keys, self.values = {}, {}

        def denoise(self, text_model, inputs_embeds, step):
            raise NotImplementedError

        def attend(self, attention, query, key, value, attention_mask, **kwargs):
            if attention.layer_idx not in self.keys:
                self.keys[attention.layer_idx], self.values[attention.layer_idx] = key, value
            stored = self.keys[attention.layer_idx], self.values[attention.layer_idx]
            return attention.attend(query, *stored, attention_mask, **kwargs)[0]

    cache = Keep()
    half = text(inputs_embeds=embeddings, layers=range(0, 2), denoising_cache=cache).last_hidden_state
    whole = text(inputs_embeds=half, layers=range(2, 4), denoising_cache=cache).last_hidden_state
    torch.testing.assert_close(whole, expected)
    positions = torch.tensor([[4, 9, 2]])
    few = text(
        inputs_embeds=embeddings[:, positions[0]], position_ids=positions, denoising_cache=cache
    ).last_hidden_state
    torch.testing.assert_close(few, expected[:, positions[0]], atol=1e-5, rtol=1e-5)


def test_generate_hands_over_the_layout():
    model = tiny_model()
    seen = []

    class Look(NoCache):
        def begin(self, layout):
            seen.append(layout)
            super().begin(layout)

    inputs = batch(example(model, 2, before=3, after=4), example(model, 1, before=1, after=2, seed=2))
    model.generate(**inputs, max_new_tokens=4, suffix=[5, 6], cache_strategy=Look())
    model.generate(**inputs, max_new_tokens=4, suffix=[5, 6], cfg_scale=1.0, cache_strategy=Look())
    plain, guided = seen
    prompt, rows = inputs["input_ids"].shape[1], inputs["input_ids"].shape[1] + 6
    assert plain.canvas == slice(prompt, prompt + 4)
    assert plain.position_ids.shape == plain.attention_mask.shape == plain.frame_index.shape == (2, rows)
    padding = int((inputs["attention_mask"][1] == 0).sum())
    assert plain.attention_mask[1].tolist() == [False] * padding + [True] * (rows - padding)
    assert plain.position_ids[1, padding:].tolist() == list(range(rows - padding))
    assert plain.frame_index[0].tolist() == [-1] * 3 + [0] * 6 + [1] * 6 + [-1] * 10
    assert torch.equal(guided.frame_index, plain.frame_index.repeat(2, 1))


def test_one_object_serves_one_call_at_a_time():
    cache = NoCache()
    cache.begin(layout(2, slice(1, 2)))
    with pytest.raises(RuntimeError, match="already serves a running `generate`"):
        cache.begin(layout(2, slice(1, 2)))
    cache.end()
    cache.begin(layout(2, slice(1, 2)))


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="'none'"):
        resolve_cache_strategy("nothing")
