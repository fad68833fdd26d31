import numpy as np

from moving_shapes import MovingShapes, frame_times
from moving_shapes.scenes.cells import label_cells
from moving_shapes.scenes.scene import COLORS, MOTIONS, SHAPES
from moving_shapes.train.dense_labels import LABELS, label_cells_over_time


def test_labels_are_the_events_of_the_shape_in_the_cell():
    scene, _ = MovingShapes("train", 20, types=("motion",)).draw(0)
    times = frame_times(8)
    cells = label_cells(scene, times)
    labels = label_cells_over_time(scene, times, cells)
    names = list(LABELS)
    assert (labels[cells.identity < 0] == -1).all()
    for index, shape in enumerate(scene.shapes):
        own = labels[cells.identity == index]
        assert len(np.unique(own[:, [i for i, n in enumerate(names) if n != "arrival"]], axis=0)) == 1
        label = dict(zip(names, own[0], strict=True))
        assert label["order"] == index and label["first_color"] == COLORS.index(shape.color)
        assert label["motion"] == (-1 if shape.motion is None else MOTIONS.index(shape.motion))
        assert label["visible_at_end"] == shape.visible(times)[-1]
        if index + 1 < len(scene.shapes):
            assert COLORS[label["next_color"]] == scene.shapes[index + 1].color
            assert SHAPES[label["next_shape"]] == scene.shapes[index + 1].shape
        else:
            assert (label["next_color"], label["next_shape"]) == (len(COLORS), len(SHAPES))
