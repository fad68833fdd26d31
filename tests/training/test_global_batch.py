import pytest
import torch

from tests.tiny_models import batch, example, tiny_model
from vidlada_hf.training.global_batch import (
    ProcessShare,
    add_loss_scales,
    add_masks,
    add_weights,
    count_targets,
    generator_of,
)


def labels(*lengths: int, tokens: int = 12) -> torch.Tensor:
    """Answers of so many tokens at the end of examples of `tokens`."""
    made = torch.full((len(lengths), tokens), -100)
    for answer, length in zip(made, lengths, strict=True):
        answer[tokens - length :] = 5
    return made


def masks(batches: list[dict]) -> list[tuple[float, list[bool]]]:
    """Of each example: its probability, and which of its labels are masked."""
    return [
        (p.item(), m[own != -100].tolist())
        for b in batches
        for p, m, own in zip(b["mask_probabilities"], b["masked"], b["labels"], strict=True)
    ]


@pytest.mark.parametrize("sampling", ["independent", "antithetic", "stratified"])
def test_any_number_of_processes_and_micro_batches_masks_the_same(sampling):
    lengths = [3, 9, 1, 5, 2, 7, 4, 6]
    whole = [{"labels": labels(*lengths)}]
    add_masks(whole, sampling, seed=3, step=5)
    expected = masks(whole)

    two_micro = [
        {"labels": labels(*lengths[:4], tokens=9)},
        {"labels": labels(*lengths[4:], tokens=20)},
    ]  # padded otherwise
    add_masks(two_micro, sampling, seed=3, step=5)
    assert masks(two_micro) == expected

    by_first = {}
    for process in range(2):  # accelerate deals out micro-batches in turn
        pairs = [lengths[4 * micro + 2 * process :][:2] for micro in range(2)]
        batches = [{"labels": labels(*pair)} for pair in pairs]
        add_masks(batches, sampling, seed=3, step=5, share=ProcessShare(process, 2))
        for micro, masked in enumerate(zip(*[iter(masks(batches))] * 2, strict=True)):
            by_first[4 * micro + 2 * process] = masked
    assert [one for first in sorted(by_first) for one in by_first[first]] == expected


def test_seed_step_and_example_each_change_the_masks():
    states = {generator_of(*key).initial_seed() for key in [(0, 0), (1, 0), (0, 1), (0, 0, 0), (0, 0, 1), (0, 1, 0)]}
    assert len(states) == 6


def test_tokens_are_masked_with_their_examples_probability():
    given = [{"labels": labels(*[400] * 50, tokens=401)}]
    add_masks(given, "stratified", seed=0, step=0)
    rates, masked = given[0]["mask_probabilities"], given[0]["masked"]
    assert not masked[:, 0].any()
    assert (masked.float().sum(-1) / 400 - rates).abs().max() < 0.1


def with_answers(model, lengths: list[int]) -> dict:
    """A batch of examples whose answers have so many tokens."""
    inputs = batch(*[example(model, 1, seed=seed) for seed in range(len(lengths))])
    answers = torch.full_like(inputs["input_ids"], -100)
    for ids, answer, length in zip(inputs["input_ids"], answers, lengths, strict=True):
        answer[-length:] = ids[-length:]
    return {name: v for name, v in inputs.items() if name != "attention_mask"} | {"labels": answers}


def cut(whole: dict, size: int) -> list[dict]:
    """A batch as two micro-batches, the first of so many examples; all have one frame each."""
    return [{name: v[:size] for name, v in whole.items()}, {name: v[size:] for name, v in whole.items()}]


def test_a_mean_over_tokens_is_that_of_the_whole_global_batch():
    """Also from uneven micro-batches: each masked token counts as much as any other."""
    model = tiny_model()
    lengths = [1, 3, 2, 3]
    whole = with_answers(model, lengths)
    parts = cut(whole, 3)
    assert [counted.tolist() for counted in count_targets(parts, "tokens")] == [[1, 3, 2], [3]]
    for batches in ([whole], parts):
        add_masks(batches, "stratified", seed=0, step=0)
        add_loss_scales(batches)
        add_weights(batches, count_targets(batches, "tokens"), sum(lengths), 4)
    losses = [batch.pop("loss_scale") * model(**batch).loss for batch in (whole, *parts)]
    one_by_one = {name: value for name, value in whole.items() if name != "example_weights"}
    alone = [model(**{name: v[i : i + 1] for name, v in one_by_one.items()}).loss for i in range(4)]
    expected = sum(loss * length for loss, length in zip(alone, lengths, strict=True)) / sum(lengths)
    torch.testing.assert_close(losses[0], expected)
    torch.testing.assert_close((losses[1] + losses[2]) / 2, expected)


@pytest.mark.parametrize("average", ["examples", "tokens"])
@pytest.mark.parametrize("repeated", [1, 2, 3])
def test_repeated_examples_change_nothing(average, repeated):
    """Two processes with two examples each, the last of which accelerate has put there."""
    model = tiny_model()
    lengths = [1, 3, 2, 3]
    real = 4 - repeated
    given = with_answers(model, lengths)
    whole, _ = cut(given, real)
    add_masks([whole], "stratified", seed=0, step=0)
    counts = count_targets([whole], average)
    total = int(counts[0].sum())
    add_weights([whole], counts, total, real)
    halves = cut(given, 2)
    for process, half in enumerate(halves):
        share = ProcessShare(process, 2, repeated)
        add_masks([half], "stratified", 0, 0, share)
        add_weights([half], count_targets([half], average, share), total, 4)
    torch.testing.assert_close(sum(model(**half).loss for half in halves) / 2, model(**whole).loss)


def test_uneven_micro_batches_count_their_examples():
    """Three examples and one: the mean of the two losses, times their shares, is the mean over the four."""
    model = tiny_model()
    whole = [with_answers(model, [3] * 4)]
    parts = cut(whole[0], 3)
    for batches in (whole, parts):
        add_masks(batches, "stratified", seed=0, step=0)
        add_loss_scales(batches)
    assert [part["loss_scale"] for part in parts] == [1.5, 0.5] and whole[0]["loss_scale"] == 1
    losses = [part.pop("loss_scale") * model(**part).loss for part in parts]
    whole[0].pop("loss_scale")
    torch.testing.assert_close(sum(losses) / 2, model(**whole[0]).loss)
