"""A row of frames for each example: the same as flat frames, and still the same where a tool has cut the batch."""

from pathlib import Path

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainingArguments

from vidlada_hf.modeling.objective_vidlada import IGNORED
from vidlada_hf.modeling.padded_visual_vidlada import flatten_frames, flatten_visual

from ..tiny_models import IMAGE, IMAGE_SIZE, VIDEO, batch, example, tiny_model

SETTINGS = {"max_new_tokens": 4, "block_length": 4}
REMEDY = "pad_sequence.*accelerator_config={'dispatch_batches': False}"


def mixed(model) -> list[dict]:
    """A video of three frames, text alone, two videos, two images."""
    two_videos = example(model, 3, seed=4) | {"num_frames_per_video": torch.tensor([1, 2])}
    images = torch.randn(2, 3, IMAGE_SIZE, IMAGE_SIZE)
    places = torch.full((2 * (model.config.vision_grid**2 + 1),), IMAGE)
    with_images = {"input_ids": torch.cat([torch.tensor([3, 4]), places, torch.tensor([5, 6, 7])])[None]}
    return [example(model, 3), example(model, 0, seed=3), two_videos, with_images | {"pixel_values": images}]


def flat(items: list[dict]) -> dict:
    inputs = batch(*items)
    if images := [one["pixel_values"] for one in items if "pixel_values" in one]:
        inputs["pixel_values"] = torch.cat(images)
    labels = torch.where(inputs["attention_mask"].bool(), inputs["input_ids"], IGNORED)
    labels[:, :-2] = IGNORED
    return inputs | {"labels": labels}


def in_rows(items: list[dict]) -> dict:
    inputs = flat(items)
    for name in ("pixel_values_videos", "num_frames_per_video", "pixel_values"):
        if given := [one[name] for one in items if name in one]:
            inputs[name] = pad_sequence([one.get(name, given[0][:0]) for one in items], batch_first=True)
    return inputs


@pytest.fixture(scope="module", params=["grid", "one_token"])
def model(request):
    return tiny_model(newline_position=request.param)


def items_of(model) -> list[dict]:
    items = mixed(model)
    if model.config.newline_position == "one_token":
        ids = items[2]["input_ids"]
        items[2]["input_ids"] = torch.cat([ids[:, :3], torch.tensor([[VIDEO]]), ids[:, 3:]], dim=1)
    return items


def results(model, inputs: dict) -> list[torch.Tensor]:
    prompts = {name: value for name, value in inputs.items() if name != "labels"}
    with torch.no_grad():
        loss, predictions = model(**inputs).to_tuple()[:2]
        scores = model.score_choices(**prompts, choices=[[7, 8], [9]], end_token_id=2, num_draws=2)
        return [model(**prompts).logits, loss, predictions, model.generate(**prompts, **SETTINGS), scores]


def test_rows_are_what_flat_frames_are(model):
    items = items_of(model)
    for own, expected in zip(results(model, in_rows(items)), results(model, flat(items)), strict=True):
        torch.testing.assert_close(own, expected)


@torch.no_grad()
def test_rows_survive_a_cut(model):
    items = items_of(model)
    whole, inputs = model(**in_rows(items)).predictions, in_rows(items)
    for part in (slice(0, 2), slice(2, 4)):
        cut = {name: value[part] for name, value in inputs.items()}
        assert torch.equal(model(**cut).predictions, whole[part])


def test_a_video_is_encoded_from_a_row():
    model = tiny_model()
    one = in_rows([example(model, 3)])
    cache = model.encode_video(**{name: one[name] for name in one if name != "labels"})
    prompts = {name: value for name, value in one.items() if name != "labels"}
    answers = [model.generate(**each, **SETTINGS, video_cache=cache) for each in (prompts, example(model, 3))]
    assert torch.equal(*answers)
    features = model.get_video_features(one["pixel_values_videos"], one["num_frames_per_video"])
    assert len(features.pooler_output) == 1


@pytest.mark.parametrize("counts", [[3, 1, 2], [5, 1], [[2, 3], [1, 0]]])
def test_counts_that_do_not_fit_are_refused(counts):
    with pytest.raises(ValueError, match="has 2 rows of 4 frames, which `num_frames_per_video` .* does not fit"):
        flatten_frames(torch.zeros(2, 4, 3, 8, 8), torch.tensor(counts))


def test_images_that_do_not_fit_are_refused():
    model = tiny_model()
    ids = torch.full((1, 17), IMAGE)
    with pytest.raises(ValueError, match=r"has 2 rows of 1 images, and the examples .* have places for \[1\]"):
        flatten_visual({"pixel_values": torch.zeros(2, 1, 3, 8, 8)}, ids, model.config)


# --- the tools that cut ----------------------------------------------------------------------------------------------


class Stream(IterableDataset):
    def __iter__(self):
        model = tiny_model()
        yield from (example(model, frames, seed=frames) for frames in (4, 6, 3, 8))


def train(folder: Path, collate, **options):
    arguments = TrainingArguments(
        str(folder),
        max_steps=2,
        per_device_train_batch_size=2,
        remove_unused_columns=False,
        save_strategy="no",
        logging_steps=1,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        **options,
    )
    trainer = Trainer(tiny_model(), arguments, train_dataset=Stream(), data_collator=collate)
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def test_a_stream_is_dispatched_in_rows_and_flat_frames_are_told_how(tmp_path):
    undivided = {"accelerator_config": {"dispatch_batches": False}}
    losses = train(tmp_path, in_rows)
    assert len(losses) == 2 and losses == train(tmp_path, flat, **undivided)
    with pytest.raises(ValueError, match=f"dispatching the batches of an iterable data set.*{REMEDY}"):
        train(tmp_path, flat)


def test_a_replica_is_told_how():
    model = tiny_model()
    inputs = flat([example(model, 4), example(model, 6, seed=2)])
    replica = model._replicate_for_data_parallel()
    replica._modules["model"] = model.model._replicate_for_data_parallel()
    halves = ({name: value.chunk(2)[i] for name, value in inputs.items()} for i in range(2))
    for half in halves:
        with pytest.raises(ValueError, match="`DataParallel` cuts .*pad_sequence.*start one process a GPU"):
            replica.model(**{name: value for name, value in half.items() if name != "labels"})
