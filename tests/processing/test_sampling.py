"""Which frames are sampled: against the recorded official code, and by properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.golden_model import load_json
from vidlada_hf.processing.sampling_vidlada import (
    frame_stride,
    frame_timestamps,
    sample_frame_indices,
    sample_frames_by_time,
)
from vidlada_hf.processing.video_processing_vidlada import VidLaDAVideoProcessor

totals = st.integers(1, 100_000)
rates = st.floats(0.01, 1000)
counts = st.integers(1, 300)


def test_official_sampling(golden):
    """Indices and times of the evaluation wrapper and the training loader, which agree."""
    cases = load_json(golden, "frame_sampling")
    assert cases
    for case in cases:
        total, average_fps = case["total_frames"], case["avg_fps"]
        indices = sample_frame_indices(
            total,
            average_fps,
            fps=case["fps"],
            max_frames=case["max_frames_num"],
            force_sample=case["force_sample"],
        )
        for official in (case["eval"], case["train"]):
            if "error" in official:  # half a frame a second, sampled at one: the official stride is 0 and it crashes
                assert frame_stride(average_fps, case["fps"]) == 1
                assert len(indices) == case["max_frames_num"]
                continue
            assert indices.tolist() == official["frame_idx"]
            assert len(indices) == official["num_frames"]
            assert total / average_fps == official["video_time"]
            stride = frame_stride(average_fps, case["fps"])
            strided = not case["force_sample"] and len(range(0, total, stride)) <= case["max_frames_num"]
            times = frame_timestamps(indices, average_fps, stride=stride if strided else None)
            assert ",".join(f"{time:.2f}s" for time in times) == official["frame_time"]


@given(totals, st.none() | rates, st.none() | rates, st.none() | counts)
def test_sampling_at_a_rate(total, average_fps, fps, max_frames):
    indices = sample_frame_indices(total, average_fps, fps=fps, max_frames=max_frames)
    assert indices.dtype == np.int64 and indices[0] == 0 and indices[-1] < total
    assert (np.diff(indices) > 0).all()
    assert max_frames is None or len(indices) <= max_frames
    stride = frame_stride(average_fps, fps)
    if max_frames is None or len(range(0, total, stride)) <= max_frames:
        assert indices.tolist() == list(range(0, total, stride))
    elif max_frames > 1:
        assert indices[-1] == total - 1 and np.ptp(np.diff(indices)) <= 1


@given(totals, counts)
def test_sampling_a_number_of_frames(total, num_frames):
    indices = sample_frame_indices(total, 30.0, num_frames=num_frames)
    assert len(indices) == min(num_frames, total)  # never more than there are
    assert indices[0] == 0 and (np.diff(indices) > 0).all()
    assert len(indices) == 1 or (indices[-1] == total - 1 and np.ptp(np.diff(indices)) <= 1)


@given(totals, counts, st.booleans())
def test_forced_sampling_repeats_frames_of_a_short_video(total, count, by_num_frames):
    indices = sample_frame_indices(
        total, 30.0, force_sample=True, **{"num_frames" if by_num_frames else "max_frames": count}
    )
    assert len(indices) == count and (np.diff(indices) >= 0).all() and indices[-1] < total


@given(rates, rates)
def test_a_stride_is_at_least_one(average_fps, fps):
    assert frame_stride(average_fps, fps) == max(1, round(average_fps / fps))
    assert frame_stride(None, fps) == frame_stride(0, fps) == frame_stride(average_fps, None) == 1


def test_timestamps():
    assert frame_timestamps([0, 15, 30], 30.0) == [0, 0.5, 1]
    assert frame_timestamps([0, 15, 30], None, stride=15) == [0, 1, 2]
    with pytest.raises(ValueError, match="pass `video_metadata` with `fps`"):
        frame_timestamps([0], None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 2, "num_frames": 8}, r"`num_frames=8` and `fps=2` .* pass one of them"),
        ({"num_frames": 0}, "`num_frames=0` is impossible: pass a whole number"),
        ({"num_frames": -3}, "`num_frames=-3`"),
        ({"num_frames": 2.5}, "`num_frames=2.5`"),
        ({"num_frames": True}, "`num_frames=True`"),
        ({"num_frames": "8"}, "`num_frames='8'`"),
        ({"max_frames": 0}, "`max_frames=0`"),
        ({"fps": 0}, "`fps=0` is impossible: pass a positive number"),
        ({"fps": -1.5}, "`fps=-1.5`"),
        ({"fps": float("nan")}, "`fps=nan`"),
        ({"fps": float("inf")}, "`fps=inf`"),
    ],
)
def test_impossible_sampling_names_the_value(options, message):
    for attempt in (
        lambda: sample_frame_indices(100, 25.0, **options),
        lambda: VidLaDAVideoProcessor(**options),
        lambda: VidLaDAVideoProcessor()(np.zeros((2, 8, 8, 3), np.uint8), **options),
    ):
        with pytest.raises(ValueError, match=message):
            attempt()


def test_nothing_to_sample():
    with pytest.raises(ValueError, match="video of 0 frames"):
        sample_frame_indices(0, 25.0)
    with pytest.raises(ValueError, match="pass `max_frames` or `num_frames`"):
        sample_frame_indices(10, 25.0, force_sample=True)


def test_a_declared_length_costs_nothing():
    """A damaged header may say anything."""
    assert sample_frame_indices(10**15, 30.0, fps=1, max_frames=4).tolist()[-1] == 10**15 - 1


@given(st.integers(1, 500), st.integers(1, 60), st.none() | counts, st.none() | st.sampled_from([0.5, 1, 2, 5]))
def test_by_time_at_a_constant_rate_is_even(total, rate, num_frames, fps):
    times = np.arange(total) / rate
    if num_frames is not None:
        fps = None
    indices = sample_frames_by_time(times, num_frames=num_frames, fps=fps, max_frames=64)
    assert indices[0] == 0 and (np.diff(indices) >= 0).all() and indices[-1] < total and len(indices) <= 64
    if num_frames is not None:
        assert len(indices) == min(num_frames, total, 64) and (len(indices) == 1 or indices[-1] == total - 1)
    elif fps is not None and len(indices) < 64:
        assert np.abs(times[indices] - np.arange(len(indices)) / fps).max() <= 1 / rate + 1e-3


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=50), st.floats(0.05, 2))
def test_by_time_shows_what_is_on_the_screen(pauses, fps):
    times = np.concatenate([[0], np.cumsum(pauses)])
    for moment, index in enumerate(sample_frames_by_time(times, fps=fps)):
        assert times[index] <= moment / fps + 1e-3
        assert index == len(times) - 1 or times[index + 1] > moment / fps
