import pytest

from moving_shapes import MovingShapes, unordered
from moving_shapes.baselines.unordered import main, measure_unordered, see


def test_what_counting_frames_tells_and_what_it_does_not():
    assert measure_unordered("when", 60) > 0.9  # the color that is also seen without the other shape came before it
    assert 0.4 < measure_unordered("start_color", 60) < 0.85  # two colors, and nearly nothing says which came first


@pytest.mark.parametrize("type", unordered.TYPES)
def test_the_order_of_frames_is_not_seen(type, monkeypatch):
    """A video played backwards looks the same to the observer."""
    drawn = [MovingShapes("test", 8, types=(type,)).draw(index) for index in range(8)]
    forwards = [see(*draw) for draw in drawn]
    times = unordered.frame_times(unordered.FRAMES)
    monkeypatch.setattr(unordered, "frame_times", lambda frames: times[::-1])
    assert [see(*draw) for draw in drawn] == forwards


def test_other_types_are_refused():
    with pytest.raises(ValueError, match="'motion'"):
        measure_unordered("motion")


def test_the_command(capsys):
    main(["--questions", "4"])
    assert capsys.readouterr().out.count(" %") == 9
