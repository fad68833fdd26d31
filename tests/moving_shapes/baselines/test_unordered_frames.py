import pytest

from moving_shapes import MovingShapes
from moving_shapes.baselines import unordered_frames
from moving_shapes.baselines.unordered_frames import main, measure_unordered, observe


def test_counting_frames_answers_some_types_and_not_others():
    assert measure_unordered("when", 60) > 0.9  # the color that also occurs without the other shape came before it
    assert (
        0.4 < measure_unordered("start_color", 60) < 0.85
    )  # two colors, and their counts hardly depend on which came first


@pytest.mark.parametrize("type", unordered_frames.TYPES)
def test_the_order_of_frames_is_not_used(type, monkeypatch):
    """A video played backwards gives the same counts."""
    drawn = [MovingShapes("test", 8, types=(type,)).draw(index) for index in range(8)]
    forwards = [observe(*draw) for draw in drawn]
    times = unordered_frames.frame_times(unordered_frames.FRAMES)
    monkeypatch.setattr(unordered_frames, "frame_times", lambda frames: times[::-1])
    assert [observe(*draw) for draw in drawn] == forwards


def test_other_types_are_refused():
    with pytest.raises(ValueError, match="'motion'"):
        measure_unordered("motion")


def test_the_command(capsys):
    main(["--questions", "4"])
    assert capsys.readouterr().out.count(" %") == 9
