import math

import pytest
import torch

from vidlada_hf.modeling.objective_vidlada import diffusion_loss, draw_mask_probabilities, draw_masks

from ..golden_model import (
    PLACEHOLDER,
    assert_recorded,
    case_names,
    find_case,
    golden_ids,
    golden_model,
    load_tensors,
    pixels,
)
from ..tiny_models import batch, example, tiny_model

CASES = case_names("train")


def merged_inputs(golden, case: dict) -> dict:
    """The recorded batch as embeddings: each row merged by itself, then padded on the right as the official code does.

    There, padding that the collator added is text (its embedding is the pad token's), padding that merging adds is
    zeros; both are attended to unless the collator gave an attention mask, which strips its padding before merging.
    """
    model = golden_model(golden).model
    model.config.newline_position = case["config_overrides"].get("mm_newline_position", "grid")
    recorded = load_tensors(golden, "train")
    labels = recorded[f"{case['name']}.merged_labels"]
    masks = case["attention_mask"] or [[1] * len(ids) for ids in case["input_ids"]]
    rows = []
    for ids, keep, frames in zip(case["input_ids"], masks, case["frames"], strict=True):
        ids = [token for token, kept in zip(ids, keep, strict=True) if kept]
        place = ids.index(PLACEHOLDER) if PLACEHOLDER in ids else len(ids)
        before, after = ids[:place], ids[place + 1 :]
        text = model.get_input_embeddings()
        parts = [text(torch.tensor(before, dtype=torch.long))]
        if PLACEHOLDER in ids:
            parts += model.get_video_features(pixels(golden, frames)).pooler_output
        rows.append(torch.cat([*parts, text(torch.tensor(after, dtype=torch.long))]))
    embeddings = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    if case["config_overrides"].get("train_pad_token"):
        pad_embedding = model.get_input_embeddings()(torch.tensor(golden_ids(golden)["end_of_text_and_pad"]))
        padding = torch.tensor([[i >= len(row) for i in range(embeddings.shape[1])] for row in rows])
        embeddings = torch.where(padding[..., None], pad_embedding, embeddings)
    inputs = {"inputs_embeds": embeddings, "labels": labels}
    key = f"{case['name']}.model_attention_mask_u8"
    if key in recorded:
        bits = recorded[key][..., None].bitwise_right_shift(torch.arange(7, -1, -1)).bitwise_and(1)
        inputs["attention_mask"] = bits.flatten(-2)[..., : labels.shape[1]].bool()[:, None]
    return inputs


@pytest.mark.parametrize("name", CASES)
def test_the_loss_is_the_recorded_one(golden, name):
    case, recorded = find_case(golden, "train", name), load_tensors(golden, "train")
    masked, probabilities = recorded[f"{name}.masked_indices"].bool(), recorded[f"{name}.p_mask_row"]
    with torch.no_grad():
        outputs = golden_model(golden)(**merged_inputs(golden, case), masked=masked, mask_probabilities=probabilities)
    torch.testing.assert_close(outputs.loss.item(), case["loss"], rtol=2e-4, atol=0)
    if f"{name}.masked_logits" in recorded:
        assert_recorded(outputs.masked_logits, golden, "train", f"{name}.masked_logits", atol=2e-3)


@pytest.mark.parametrize("name", case_names("train", force_mask=None))
def test_the_masks_drawn_are_the_recorded_ones(golden, name):
    case, recorded = find_case(golden, "train", name), load_tensors(golden, "train")
    labels = recorded[f"{name}.merged_labels"]
    generator = torch.Generator().manual_seed(case["torch_manual_seed"])
    probabilities = draw_mask_probabilities(len(labels), labels.device, generator)
    torch.testing.assert_close(probabilities, recorded[f"{name}.p_mask_row"])
    assert torch.equal(draw_masks(labels, probabilities, generator), recorded[f"{name}.masked_indices"].bool())


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["batch2_no_attention_mask", "multi_turn_conversation_mask"])
def test_gradients_are_the_recorded_ones(golden, name, checkpointing):
    model, recorded = golden_model(golden), load_tensors(golden, "train")
    case = find_case(golden, "train", name)
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    try:
        model.zero_grad()
        masks = {
            "masked": recorded[f"{name}.masked_indices"].bool(),
            "mask_probabilities": recorded[f"{name}.p_mask_row"],
        }
        model(**merged_inputs(golden, case), **masks).loss.backward()
        gradients = {parameter: p.grad for parameter, p in model.named_parameters()}
    finally:
        model.gradient_checkpointing_disable()
        model.eval()
    tower = "model.vision_tower"
    names = {
        "model.image_newline": "model.image_newline.weight",
        "model.mm_projector.0.bias": "model.multi_modal_projector.linear_1.bias",
        "model.norm.weight": "model.language_model.norm.weight",
        "model.layers.0.input_layernorm.weight": "model.language_model.layers.0.input_layernorm.weight",
        f"{tower}.vision_tower.vision_model.encoder.layers.0.layer_norm1.weight": (
            f"{tower}.encoder.layers.0.layer_norm1.weight"
        ),
    }
    for official, own in names.items():
        expected = recorded[f"{name}.grad.{official}"]
        torch.testing.assert_close(gradients[own], expected, rtol=2e-3, atol=2e-3 * expected.abs().max().item())
    row = gradients["model.language_model.embed_tokens.weight"][model.config.mask_token_id]
    expected = recorded[f"{name}.grad.model.embed_tokens.weight[mask_row]"]
    torch.testing.assert_close(row, expected, rtol=2e-3, atol=2e-3 * expected.abs().max().item())
    for official, own in (
        ("model.image_newline", "model.image_newline.weight"),
        ("lm_head.weight", "lm_head.weight"),
    ):
        torch.testing.assert_close(gradients[own].norm().item(), case["grad_norms"][official], rtol=2e-3, atol=0)


# --- properties ------------------------------------------------------------------------------------------------------


def labeled(inputs: dict, rows: int = 3) -> torch.Tensor:
    """Labels for the last rows of each example."""
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -rows:] = inputs["input_ids"][:, -rows:]
    return labels


@torch.no_grad()
def test_padding_changes_no_loss():
    model = tiny_model()
    examples = [example(model, 2), example(model, 1, before=1, seed=2)]
    together = batch(*examples)
    labels = labeled(together)
    probabilities, masked = torch.tensor([0.5, 0.25]), (labels != -100) & (torch.arange(labels.shape[1]) % 2 == 0)
    loss = model(**together, labels=labels, masked=masked, mask_probabilities=probabilities).loss
    alone = []
    for i, one in enumerate(examples):
        length = one["input_ids"].shape[1]
        arguments = {"masked": masked[i : i + 1, -length:], "mask_probabilities": probabilities[i : i + 1]}
        alone.append(model(**one, labels=labeled(one), **arguments).loss)
    torch.testing.assert_close(loss, torch.stack(alone).mean())


@torch.no_grad()
def test_the_loss_does_not_see_what_is_masked():
    """Changing the ids below the masks changes nothing but the targets."""
    model = tiny_model()
    inputs = example(model, 1)
    labels = labeled(inputs)
    masks = {"masked": labels != -100, "mask_probabilities": torch.tensor([1.0])}
    expected = model(**inputs, labels=labels, **masks).loss
    inputs["input_ids"][:, -3:] = 7
    torch.testing.assert_close(model(**inputs, labels=labels, **masks).loss, expected)


def test_a_generator_makes_the_loss_repeatable():
    model = tiny_model()
    inputs = example(model, 1)
    losses = [
        model(**inputs, labels=labeled(inputs, 4), generator=torch.Generator().manual_seed(seed)).loss.item()
        for seed in (1, 1, 2)
    ]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("sampling", ["independent", "antithetic", "stratified"])
@pytest.mark.parametrize("count", [1, 7, 8])
def test_every_sampling_is_uniform(sampling, count):
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([draw_mask_probabilities(count, torch.device("cpu"), generator, sampling) for _ in range(4000)])
    assert drawn.shape == (4000, count) and drawn.min() >= 1e-3 and drawn.max() <= 1
    for each in (drawn[:, 0], drawn[:, -1]):
        torch.testing.assert_close(each.mean().item(), 0.5005, atol=0.02, rtol=0)
        torch.testing.assert_close(each.var().item(), 1 / 12, atol=0.01, rtol=0)


def test_spread_samplings_lower_the_variance_of_the_loss():
    """On a loss that falls with the rate, as a trained model's does."""
    generator = torch.Generator().manual_seed(0)

    def variance(sampling: str) -> float:
        means = [
            draw_mask_probabilities(8, torch.device("cpu"), generator, sampling).square().mean() for _ in range(2000)
        ]
        return torch.stack(means).var().item()

    plain = variance("independent")
    assert variance("antithetic") < plain / 2 and variance("stratified") < plain / 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": torch.full((1, 13), -100)}, r"Examples \[0\] of the batch have no labeled token"),
        ({"masked": torch.ones(1, 13, dtype=torch.bool)}, "needs `mask_probabilities`"),
        (
            {"masked": torch.ones(1, 13, dtype=torch.bool), "mask_probabilities": torch.ones(1)},
            "tokens without a label",
        ),
        ({"labels": None, "mask_probabilities": torch.ones(1)}, "belong to training: give `labels` too"),
        ({"time_sampling": "sobol"}, "Unknown `time_sampling` 'sobol'"),
        ({"labels": torch.ones(2, 13, dtype=torch.long)}, r"`labels` have the shape \(2, 13\), the inputs \(1, 13\)"),
        ({"labels": torch.full((1, 13), -1)}, "`labels` hold -1: write ids from 0 to "),
        ({"labels": torch.full((1, 13), 10**6)}, "`labels` hold 1000000: write ids"),
        (
            {"labels": torch.ones(1, 13, dtype=torch.long)},
            "Example 0 has a label on token [0-9]+, which stands for its video",
        ),
        (
            {"masked": torch.ones(13, dtype=torch.bool), "mask_probabilities": torch.ones(1)},
            r"`masked` must have the shape \(1, 13\), got \(13,\)",
        ),
        ({"example_weights": torch.ones(2)}, r"`example_weights` must have the shape \(1,\), got \(2,\)"),
        ({"mask_probabilities": torch.ones(2)}, r"`mask_probabilities` must have the shape \(1,\), got \(2,\)"),
        *(
            (
                {"mask_probabilities": torch.tensor([value])},
                r"`mask_probabilities` must be above 0 and at most 1, got \[",
            )
            for value in (0.0, -0.5, 1.5, math.nan)
        ),
    ],
)
def test_bad_input_is_refused(arguments, message):
    model = tiny_model()
    inputs = example(model, 1)
    with pytest.raises(ValueError, match=message):
        model(**inputs, **({"labels": labeled(inputs)} | arguments))


def test_the_weight_is_one_over_probability_and_length():
    labels = torch.tensor([[3, 4, -100], [5, -100, -100]])
    masked = torch.tensor([[True, False, False], [True, False, False]])
    logits = torch.randn(2, 8)
    entropy = torch.nn.functional.cross_entropy(logits, torch.tensor([3, 5]), reduction="none")
    expected = (entropy[0] / 0.5 / 2 + entropy[1] / 0.25 / 1) / 2
    torch.testing.assert_close(diffusion_loss(logits, labels, masked, torch.tensor([0.5, 0.25])), expected)
