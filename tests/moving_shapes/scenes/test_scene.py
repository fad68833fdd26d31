"""Scenes: shapes clear of each other, events far enough apart, combinations of their split."""

import numpy as np
import pytest
from hypothesis import given, settings

from moving_shapes.scenes.sampling import KINDS, sample_scene
from moving_shapes.scenes.scene import BEAT, SHAPES, Scene, frame_times
from moving_shapes.scenes.splits import SPLITS, get_split
from vidlada_hf.processing.video_processing_vidlada import sample_frame_indices

from ..helpers import scene_of, scenes


@settings(max_examples=80, deadline=None)
@given(scenes)
def test_shapes_never_touch_and_stay_in_the_frame(scene: Scene) -> None:
    times = frame_times(64)
    for i, shape in enumerate(scene.shapes):
        centers = shape.centers(times)
        visible = shape.visible(times)
        assert visible.any() and np.isnan(centers[~visible]).all()
        assert (centers[visible] >= shape.radius).all() and (centers[visible] <= 1 - shape.radius).all()
        for other in scene.shapes[:i]:
            gap = np.abs(centers - other.centers(times)).max(-1)
            assert not (gap < max(0.25, shape.radius + other.radius)).any()


@settings(max_examples=80, deadline=None)
@given(scenes)
def test_events_are_together_or_one_and_a_half_beats_apart(scene: Scene) -> None:
    moments = {moment for s in scene.shapes for span in s.spans for moment in (span.start, span.end)}
    moments |= {s.change_time for s in scene.shapes if s.change_time is not None} - {None}
    gaps = np.diff(sorted(moments - {0.0, 1.0}))
    assert (gaps[gaps > 1e-9] >= 1.5 * BEAT - 1e-9).all()
    assert all(BEAT < moment < 1 - BEAT for moment in moments - {0.0, 1.0})


@settings(max_examples=80, deadline=None)
@given(scenes)
def test_a_moving_shape_moves_visibly_in_eight_frames(scene: Scene) -> None:
    """By more than 6 of 64 pixels. The least of 8,270 in scenes of arrivals was 8."""
    times = frame_times(8)
    for shape in scene.shapes:
        if shape.motion not in (None, "still"):
            centers = shape.centers(times)[shape.visible(times)]
            assert len(centers) >= 2 and np.abs(centers[-1] - centers[0]).max() > 0.1


@settings(max_examples=100, deadline=None)
@given(scenes)
def test_scenes_have_combinations_of_their_split_alone(scene: Scene) -> None:
    split = get_split(scene.split)
    combinations = [combination for shape in scene.shapes for combination in shape.combinations]
    assert len(set(combinations)) == len(combinations)
    assert set(combinations) <= set(split.combinations)
    assert scene.background in split.backgrounds
    assert not split.held_out or set(combinations) & set(split.held_out)


def test_held_out_combinations_are_in_one_split() -> None:
    train, validation, test = (SPLITS[name] for name in ("train", "validation", "test"))
    assert not set(train.combinations) & (set(validation.held_out) | set(test.held_out))
    assert not set(validation.combinations) & set(test.held_out) and not set(test.combinations) & set(
        validation.held_out
    )
    backgrounds = [background for split in SPLITS.values() for background in split.backgrounds]
    assert len(backgrounds) == len(set(backgrounds)) == 12
    for shape in SHAPES:
        assert all(any(s == shape for _, s in split) for split in (validation.held_out, test.held_out))


def test_crowded_scenes_are_as_frequent_as_empty_ones() -> None:
    rng = np.random.Generator(np.random.Philox(0))
    counts = np.bincount([len(sample_scene(rng, kind="departures").shapes) for _ in range(300)], minlength=5)[1:]
    assert (np.abs(counts / 300 - 0.25) < 0.07).all()


def test_half_of_the_groups_have_one_that_returns_whatever_their_sizes() -> None:
    rng = np.random.Generator(np.random.Philox(0))
    drawn = [sample_scene(rng, kind="groups") for _ in range(600)]
    sums = {sum(len(shape.spans) for shape in scene.shapes): [] for scene in drawn}
    for scene in drawn:
        sums[sum(len(shape.spans) for shape in scene.shapes)].append(any(len(s.spans) > 1 for s in scene.shapes))
    assert all(abs(np.mean(returns) - 0.5) < 0.1 for returns in sums.values())


def test_a_scene_follows_from_its_seed() -> None:
    assert scene_of(3) == scene_of(3) != scene_of(4)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 16, 23, 32, 64])
def test_frame_times_are_the_video_processors(count: int) -> None:
    np.testing.assert_array_equal(np.rint(frame_times(count) * 63), sample_frame_indices(64, num_frames=count))


@pytest.mark.parametrize("count", [0, -1, 65])
def test_impossible_frame_counts_are_named(count: int) -> None:
    with pytest.raises(ValueError, match=f"num_frames={count}"):
        frame_times(count)


def test_unknown_names_are_named_with_the_known_ones() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="no split 'dev': pass one of 'train'"):
        sample_scene(rng, "dev")
    with pytest.raises(ValueError, match="no kind of scene 'explosion'"):
        sample_scene(rng, kind="explosion")
    with pytest.raises(ValueError, match="cannot have 9 shapes"):
        sample_scene(rng, kind="steady", count=9)
    assert len(KINDS) == 9
