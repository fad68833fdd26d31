"""The model as one graph, from ids and pixels: `torch.export` and `torch.compile`."""

from typing import Any

import pytest
import torch

from ..tiny_models import IMAGE, IMAGE_SIZE, batch, example, tiny_model


def one_layer(**fields: Any) -> Any:
    return tiny_model(text_config={"num_hidden_layers": 1}, **fields)


def videos_and_an_image(model: Any) -> dict[str, Any]:
    """Two examples, the first of two videos with different numbers of frames, the second padded; and an image."""
    first, second = example(model, 2), example(model, 1, seed=2)
    image = torch.tensor([[5, *([IMAGE] * 17)]])
    first["input_ids"] = torch.cat([first["input_ids"], second["input_ids"], image], dim=1)
    for name in ("pixel_values_videos", "num_frames_per_video"):
        first[name] = torch.cat([first[name], second[name]])
    return batch(first, second) | {"pixel_values": torch.randn(1, 3, IMAGE_SIZE, IMAGE_SIZE)}


@pytest.mark.parametrize("position", ["grid", pytest.param("one_token", marks=pytest.mark.slow)])
@torch.no_grad()
def test_an_exported_model_gives_the_same(position):
    model = one_layer(newline_position=position)
    inputs = videos_and_an_image(model)
    program = torch.export.export(model, (), inputs, strict=False)
    expected, outputs = model(**inputs), program.module()(**inputs)
    torch.testing.assert_close(outputs.logits, expected.logits)
    torch.testing.assert_close(outputs.video_outputs.pooler_output, expected.video_outputs.pooler_output)


@pytest.mark.slow
@torch.no_grad()
def test_a_model_compiled_as_one_graph_gives_the_same():
    torch._dynamo.reset()
    model = one_layer()
    inputs = videos_and_an_image(model)
    outputs = torch.compile(model, backend="eager", fullgraph=True)(**inputs)
    torch.testing.assert_close(outputs.logits, model(**inputs).logits)


@torch.no_grad()
def test_an_exported_model_still_counts():
    model = one_layer()
    inputs = example(model, 2)
    module = torch.export.export(model, (), inputs, strict=False).module()
    inputs["input_ids"][0, 0] = inputs["input_ids"][0, 5]  # one placeholder too many
    with pytest.raises(RuntimeError):
        module(**inputs)
