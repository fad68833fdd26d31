"""When frames are shown, by times that are unknown, rounded, repeated or start again."""

import numpy as np
import pytest

from vidlada_hf.processing.video_clock_vidlada import make_clock


def test_a_constant_rate_is_not_rounded():
    """Matroska rounds to milliseconds; index / rate is what the times were."""
    times = np.round(np.arange(1000) / 29.97, 3)
    clock = make_clock(times + 5, 29.97, tick=1e-3, last=0.033)
    assert clock.fps == 29.97 and clock.duration == 1000 / 29.97
    assert np.array_equal(clock.times, np.arange(1000) / 29.97)


@pytest.mark.parametrize("declared", [None, 25.0])
def test_a_pause_is_kept_and_lowers_the_average(declared):
    clock = make_clock(np.array([0, 0.04, 0.08, 20.0, 20.04]), declared, last=0.04)
    assert clock.times.tolist() == [0, 0.04, 0.08, 20.0, 20.04]
    assert clock.duration == pytest.approx(20.08) and clock.fps == pytest.approx(5 / 20.08)


@pytest.mark.parametrize("restart", [-3.0, 0.0, np.nan, 95443.0])
def test_a_clock_that_starts_again_goes_on(restart):
    """The second part's times are unknown, before, at, or far behind the first part's end."""
    first = np.arange(10) * 0.04
    second = first[-1] + restart + np.arange(10) * 0.04
    clock = make_clock(np.concatenate([first, second]), 25.0, can_jump=True)
    np.testing.assert_allclose(clock.times, np.arange(20) * 0.04, atol=1e-9)
    assert clock.duration == pytest.approx(0.8)


def test_the_last_picture_rests():
    assert make_clock(np.arange(10) * 0.04, 25.0, last=8.0).duration == pytest.approx(8.36)
    assert make_clock(np.arange(10) * 0.04 + 2, 25.0, end=12.0).duration == pytest.approx(10)


def test_without_any_clock():
    nothing = make_clock(np.full(3, np.nan), None)
    assert (nothing.times, nothing.fps, nothing.duration) == (None, None, None)
    assert make_clock(np.full(3, np.nan), 25.0).duration == pytest.approx(3 / 25)
