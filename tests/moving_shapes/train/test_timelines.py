import numpy as np

from moving_shapes import MovingShapes, frame_times
from moving_shapes.scenes.cells import label_cells
from moving_shapes.scenes.scene import COLORS, MOTIONS
from moving_shapes.train.timelines import TIMELINES, label_timelines


def test_timelines_tell_the_life_of_the_shape_in_the_cell():
    scene, _ = MovingShapes("train", 20, types=("motion",)).draw(0)
    times = frame_times(8)
    cells = label_cells(scene, times)
    labels = label_timelines(scene, times, cells)
    names = list(TIMELINES)
    assert (labels[cells.identity < 0] == -1).all()
    for place, shape in enumerate(scene.shapes):
        mine = labels[cells.identity == place]
        assert len(np.unique(mine[:, [i for i, n in enumerate(names) if n != "arrival"]], axis=0)) == 1
        told = dict(zip(names, mine[0], strict=True))
        assert told["order"] == place and told["first_color"] == COLORS.index(shape.color)
        assert told["motion"] == (-1 if shape.motion is None else MOTIONS.index(shape.motion))
        assert told["there_at_end"] == shape.visible(times)[-1]
