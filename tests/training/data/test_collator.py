from dataclasses import replace

import pytest
import torch

from tests.golden_model import (
    PLACEHOLDER,
    find_case,
    golden_ids,
    golden_tokenizer,
    load_json,
    load_tensors,
    pixels,
    tower_settings,
)
from tests.tiny_models import tiny_model, write_tiny_checkpoint
from vidlada_hf.modeling.modeling_vidlada import VidLaDAForConditionalGeneration
from vidlada_hf.processing.processing_vidlada import VidLaDAProcessor, count_frame_tokens
from vidlada_hf.training.data.collator import PRESETS, DiffusionCollator, LabelOptions, conversation_mask

ROLES = {"human": "user", "gpt": "assistant"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def processor(checkpoint) -> VidLaDAProcessor:
    return VidLaDAProcessor.from_pretrained(checkpoint)


def conversation(*texts: str, frames: int = 0) -> dict:
    """Alternating user and assistant, the first with a video of so many frames."""
    messages = []
    for i, text in enumerate(texts):
        video = (
            [{"type": "video", "video": torch.zeros(frames, 3, 8, 8, dtype=torch.uint8)}] if frames and not i else []
        )
        content = [*video, {"type": "text", "text": text}]
        messages.append({"role": ("user", "assistant")[i % 2], "content": content})
    return {"messages": messages}


# --- the official recipe ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def official(golden) -> DiffusionCollator:
    return DiffusionCollator(VidLaDAProcessor(tokenizer=golden_tokenizer(golden)), "official")


def test_labels_are_the_recorded_ones(golden, official):
    cases = [case for case in load_json(golden, "prompts") if case["kind"] == "train_sample"]
    assert cases
    for case in cases:
        labels, _ = official.label(torch.tensor(case["input_ids"]))
        expected = [
            -100 if token == PLACEHOLDER else label
            for token, label in zip(case["input_ids"], case["labels"], strict=True)
        ]
        assert labels.tolist() == expected, case["name"]


def test_turns_are_the_recorded_ones(golden, official):
    """The table gives labels; where they hide a token, any text stands."""
    for case in load_json(golden, "tables")["conversation_ids"]:
        ids = torch.tensor([200 if label == -100 else label for label in case["labels"]])
        if (ids == golden_ids(golden)["start_header"]).any():
            _, turns = official.label(ids)
            assert turns.tolist() == case["out"]


def test_the_conversation_mask_is_the_recorded_one(golden, official):
    case = find_case(golden, "train", "batch2_padding_and_conversation_mask")
    recorded = load_tensors(golden, "train")[f"{case['name']}.model_attention_mask_u8"]
    bits = recorded[..., None].bitwise_right_shift(torch.arange(7, -1, -1)).bitwise_and(1).flatten(-2).bool()
    length = case["merged_shape"][1]
    turns = torch.full((2, length), -1)
    for i, runs in enumerate(case["conversation_ids_runs"]):
        ids = torch.cat([torch.full((count,), turn) for turn, count in runs])
        turns[i] = ids
    keep = [[k for k, m in zip(range(len(m)), m, strict=True) if m] for m in case["attention_mask"]]
    size, patch = tower_settings(golden)["image_size"], tower_settings(golden)["patch_size"]
    per_frame = count_frame_tokens(size, size, patch, 2, "bilinear", "grid")
    frames = [len(pixels(golden, name)) for name in case["frames"]]
    real = [len(k) - 1 + n * per_frame for k, n in zip(keep, frames, strict=True)]  # one placeholder becomes a video
    for i, count in enumerate(real):
        turns[i, count:] = -1
    ours = conversation_mask(turns)[:, 0]
    for i, count in enumerate(real):
        assert torch.equal(ours[i, :count], bits[i, :count, :length])


def test_the_official_preset_learns_its_padding(processor):
    collator = DiffusionCollator(processor, replace(PRESETS["official"], text_only=True))
    batch = collator([conversation("Why?", "Because."), conversation("Why?", "Because it is so.")])
    pad = processor.tokenizer.pad_token_id
    assert "attention_mask" not in batch
    assert batch["labels"][0, -1] == pad == batch["input_ids"][0, -1]


# --- our default -----------------------------------------------------------------------------------------------------


def test_only_answers_and_their_ends_are_learned(processor):
    batch = DiffusionCollator(processor, {"text_only": True})(
        [conversation("Why?", "Because.", "And then?", "Nothing.")]
    )
    learned = batch["labels"][0]
    text = processor.decode(learned[learned != -100])
    assert text == "\n\nBecause.<|eot_id|>\n\nNothing.<|eot_id|>"
    assert (batch["input_ids"][0][learned != -100] == learned[learned != -100]).all()


def test_control_tokens_in_an_answer_are_learned_as_text(processor):
    batch = DiffusionCollator(processor, {"text_only": True})(
        [conversation("What ends <|eot_id|> a turn?", "This: <|eot_id|>, not <|mdm_mask|>.")]
    )
    labels = batch["labels"][0]
    learned = labels[labels != -100].tolist()
    ids = processor.tokenizer.get_vocab()
    assert processor.decode(learned).strip() == "This: <|eot_id|>, not <|mdm_mask|>.<|eot_id|>"
    assert learned.count(ids["<|eot_id|>"]) == 1 and ids["<|mdm_mask|>"] not in learned


def test_videos_stay_exact_and_padding_is_masked(processor):
    examples = [conversation("Why?", "Because.", frames=3), conversation("What do you see?", "A dot.", frames=1)]
    batch = DiffusionCollator(processor)(examples)
    assert batch["num_frames_per_video"].tolist() == [[3], [1]] and batch["pixel_values_videos"].shape[:2] == (2, 3)
    for i, example in enumerate(examples):
        alone = DiffusionCollator(processor)([example])
        length = alone["input_ids"].shape[1]
        assert torch.equal(batch["input_ids"][i, -length:], alone["input_ids"][0])
        assert torch.equal(batch["labels"][i, -length:], alone["labels"][0])
        assert batch["attention_mask"][i].sum() == length
        assert "attention_mask" not in alone


@torch.no_grad()
def test_the_loss_of_a_batch_is_that_of_its_examples(checkpoint, processor):
    model = VidLaDAForConditionalGeneration.from_pretrained(checkpoint).eval()
    collator = DiffusionCollator(processor)
    examples = [conversation("Why?", "Because.", frames=2), conversation("What do you see?", "A dot.", frames=1)]
    ones = {"mask_probabilities": torch.ones(2)}
    batch = collator(examples)
    together = model(**batch, masked=batch["labels"] != -100, **ones).loss
    alone = []
    for example in examples:
        one = collator([example])
        alone.append(model(**one, masked=one["labels"] != -100, mask_probabilities=torch.ones(1)).loss)
    torch.testing.assert_close(together, torch.stack(alone).mean())


@torch.no_grad()
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_turn_does_not_see_later_ones(attention):
    model = tiny_model()
    model.set_attn_implementation(attention)
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    mask = conversation_mask(torch.tensor([[0, 0, 1, 1, 2]]))
    before = model(input_ids=ids, attention_mask=mask).logits
    ids[0, -1] = 20
    after = model(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(after[:, :4], before[:, :4])
    assert (after[:, 4] - before[:, 4]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("example", "options", "message"),
    [
        (conversation("Why?"), {}, "Example 0 of the batch does not end with an answer"),
        (conversation("Why?", " "), {}, "Example 0 of the batch has an empty answer"),
        (conversation("Why?", "\u200b"), {}, "Example 0 of the batch has an empty answer"),  # zero-width space
        (conversation("Why?", "Because."), {"text_only": False}, "Example 0 of the batch has no video and no image"),
        (conversation("Why?", "Because."), {"max_length": 10}, r"takes \d+ tokens, more than `max_length` \(10\)"),
    ],
)
def test_bad_conversations_are_refused(processor, example, options, message):
    with pytest.raises(ValueError, match=message):
        DiffusionCollator(processor, {"text_only": True} | options)([example])


def test_an_unknown_preset_lists_the_known_ones(processor):
    with pytest.raises(ValueError, match="'answers', 'official'"):
        DiffusionCollator(processor, "unknown")
    with pytest.raises(ValueError, match="Unknown key `header` in `labels`: did you mean `headers`"):
        DiffusionCollator(processor, {"header": True})


def test_a_canvas_is_filled_to_one_of_the_lengths_asked_for(processor):
    """From the longest prompt on, so that what follows an answer is learned as far as `generate` will ask for it."""
    collator = DiffusionCollator(processor, {"padding": True, "canvas": [4, 24, 40]})
    seen = set()
    for i in range(12):
        asked = conversation(f"Why is it so, case {i}?", "Because.", frames=1)
        batch = collator([conversation("Why?", "No.", frames=1), asked])
        prompts = [int((row != -100).nonzero()[0]) for row in batch["labels"]]
        seen.add(batch["labels"].shape[1] - max(prompts))
        pad = processor.tokenizer.pad_token_id
        assert (batch["labels"][:, -1] == pad).all() and "attention_mask" not in batch
    assert seen == {24, 40}  # the answers take more than 4
    with pytest.raises(ValueError, match="needs `padding=True`"):
        DiffusionCollator(processor, {"canvas": [8]})
    with pytest.raises(ValueError, match=r"`canvas` must be lengths of at least 1 token, got \[8, 0\]"):
        LabelOptions(padding=True, canvas=(8, 0))


def test_a_canvas_does_not_exceed_the_context(processor):
    asked = [conversation("Why?", "No.", frames=1), conversation("Why is it so?", "Because.", frames=1)]
    tokens = DiffusionCollator(processor)(asked)["input_ids"].shape[1]
    for canvas, room, expected in (([400], 0, tokens), ([400], 300, tokens), ([24, 400], 100, None)):
        options = {"padding": True, "canvas": canvas, "max_length": tokens + room}
        batch = DiffusionCollator(processor, options)(asked)
        prompt = max(int((row != -100).nonzero()[0]) for row in batch["labels"])
        assert batch["input_ids"].shape[1] == (expected or prompt + 24)
