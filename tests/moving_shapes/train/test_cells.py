import numpy as np
import torch

from moving_shapes import MovingShapes
from moving_shapes.scenes.cells import label_cells
from moving_shapes.train.cells import CellLabelsTask, encode_cells, frame_positions, normalize_pixels
from moving_shapes.train.tiny_model import build_tiny
from tests.training.helpers import losses_of


def test_frames_are_normalized_as_the_processor_does():
    _, processor = build_tiny()
    frames = MovingShapes("train", 1)[0].frames
    expected = processor.video_processor(frames, return_tensors="pt")["pixel_values_videos"]
    assert torch.allclose(normalize_pixels(torch.from_numpy(frames)), expected, atol=1e-6)


def test_cells_are_the_visual_tokens_without_newlines():
    model, _ = build_tiny()
    pixels = torch.randn(3, 3, 64, 64)
    cells = encode_cells(model, pixels)
    tokens = model.get_video_features(pixels).pooler_output[0].view(3, 4, 5, -1)
    assert cells.shape == (3, 4, 4, 128) and torch.allclose(cells, tokens[:, :, :4], atol=1e-5)
    assert torch.equal(tokens[:, :, 4], model.model.image_newline.weight.expand(3, 4, -1))


def test_positions_are_those_of_the_shapes():
    scene, _ = MovingShapes("train", 1).draw(0)
    times = np.array([0.0])
    cells = label_cells(scene, times)
    position = frame_positions(cells.offset)
    for row, column in np.argwhere(cells.identity[0] >= 0):
        center = scene.shapes[cells.identity[0, row, column]].centers(times)[0]
        assert np.allclose(position[0, row, column], center * 2 - 1, atol=1e-5)


def test_it_learns():
    torch.manual_seed(0)
    task = CellLabelsTask(*build_tiny(), scenes=8)
    batch = task.collate([task.dataset()[i] for i in range(8)])
    losses = losses_of(task, batch, 12, 2e-3)
    assert losses[-1] < losses[0] / 2
