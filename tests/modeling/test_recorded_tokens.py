"""Ten prompts answered by every strategy: the tokens are those recorded before the code was changed."""

import json
from pathlib import Path

import pytest

from vidlada_hf import VidLaDAForConditionalGeneration, VidLaDAProcessor
from vidlada_hf.hub.locate import EMBEDDED_CHECKPOINT

RECORDED = json.loads((Path(__file__).parent / "recorded_tokens.json").read_text())
DEMO = EMBEDDED_CHECKPOINT / "demo"
# These compute every position in every step.
SLOW = [name for name, case in RECORDED["cases"].items() if case["arguments"]["cache_strategy"] == "none"]


@pytest.fixture(scope="module")
def model_and_inputs():
    """The embedded checkpoint, and the shipped clip with its ten questions as one padded batch.

    Special tokens are suppressed: each answer fills its canvas, and so all ten tell one strategy from another.
    """
    model = VidLaDAForConditionalGeneration.from_pretrained(EMBEDDED_CHECKPOINT).eval()
    processor = VidLaDAProcessor.from_pretrained(EMBEDDED_CHECKPOINT)
    questions = [json.loads(line) for line in (DEMO / "questions.jsonl").read_text().splitlines()]
    inputs = processor.apply_chat_template(
        [
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "video", "path": str(DEMO / question["video"])},
                        {"type": "text", "text": question["question"]},
                    ],
                }
            ]
            for question in questions
        ],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={"num_frames": RECORDED["frames"], "padding": True},
    )
    features = model.get_video_features(inputs.pop("pixel_values_videos"), inputs["num_frames_per_video"])
    return model, dict(inputs) | {"video_features": features}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in RECORDED["cases"]]
)
def test_tokens_are_those_recorded(name, model_and_inputs):
    model, inputs = model_and_inputs
    case = RECORDED["cases"][name]
    sequences = model.generate(**inputs, eos_token_id=[], **(RECORDED["settings"] | case["arguments"]))
    answers = sequences[:, inputs["input_ids"].shape[1] :].tolist()
    assert [" ".join(map(str, answer)) for answer in answers] == case["tokens"]
