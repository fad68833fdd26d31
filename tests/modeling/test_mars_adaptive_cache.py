import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidlada_hf.modeling.cache_vidlada import NoCache
from vidlada_hf.modeling.mars_adaptive_cache_vidlada import MARSAdaptiveCache, MARSAdaptiveConfig
from vidlada_hf.modeling.mars_cache_vidlada import Due, MARSCache, MARSCacheConfig
from vidlada_hf.modeling.modeling_vidlada import VidLaDAForConditionalGeneration

from .layouts import Case, Prompt, assert_each_gets_what_it_gets_alone, assert_same, cases, plain_case, run
from .tiny import example, tiny_model

NEVER = float("inf")


def adaptive(**settings) -> MARSAdaptiveCache:
    return MARSAdaptiveCache(MARSAdaptiveConfig(**({"anchors": 2, "probe_rows": 3} | settings)))


def refreshes(strategy: MARSCache) -> list[Due]:
    """Of the one example, after the first step."""
    return [due[0] for due in strategy.refreshed][1:]


@settings(max_examples=20, deadline=None)
@given(
    case=cases(equal=False),
    bound=st.sampled_from([0.0, 0.05, 0.3]),
    groups=st.integers(1, 4),
    first=st.sampled_from(["full", "chunked"]),
)
def test_each_example_of_a_batch_gets_what_it_gets_alone(case, bound, groups, first):
    """Also when to refresh is decided for each example by its own probes."""
    assert_each_gets_what_it_gets_alone(lambda: adaptive(drift_bound=bound, groups=groups, first_step=first), case)


def test_without_a_bound_nothing_is_refreshed_and_with_none_at_all_every_third_step_is():
    case = plain_case(frames=4, rows=4, blocks=1, steps=8)
    lazy, eager = adaptive(drift_bound=NEVER), adaptive(drift_bound=0)
    run(lazy, case), run(eager, case)
    assert refreshes(lazy) == [Due(4, 4)] * 7
    assert [due != Due(4, 4) for due in refreshes(eager)] == [False, False, True, False, False, True, False]


def test_the_smaller_the_bound_the_more_is_refreshed_and_the_nearer_to_exact():
    case = Case((Prompt(2, (4,) * 6, 3),), 4, (((True,),) * 12,))
    exact, work, errors = run(NoCache(), case), [], []
    lazy = adaptive(drift_bound=NEVER, neighbourhood=None)
    run(lazy, case)
    largest = max(drift.nan_to_num().max().item() for drift in lazy.drifts)
    for bound in (NEVER, 0.9 * largest, 0.5 * largest, 0):
        strategy = adaptive(drift_bound=bound, neighbourhood=None)
        states = run(strategy, case)
        work.append(sum(8 - due.visual - due.text for due in refreshes(strategy)))
        errors.append(sum((a - b).norm() for a, b in zip(states, exact, strict=True)).item())
    assert work[0] == 0 < work[1] < min(work[2:])
    assert errors[-1] < errors[0]


def test_a_drift_above_the_bound_is_what_asks_for_a_refresh():
    strategy, bound = adaptive(drift_bound=0.1), 0.1
    run(strategy, plain_case(frames=4, rows=4, blocks=2, steps=8))
    asked = 0
    for drift, due in zip(strategy.drifts, strategy.refreshed[1:], strict=False):
        for kind, group in enumerate((due[0].visual, due[0].text)):
            over = (drift[:, 0, kind] > bound).nonzero()[:, 0].tolist()
            assert group == (over[0] if over else 4)
            asked += bool(over)
    assert asked
    for drift, due in zip(strategy.drifts, strategy.refreshed, strict=True):  # nothing to compare with in a refresh
        assert drift[due[0].visual :, 0, 0].isnan().all() and drift[due[0].text :, 0, 1].isnan().all()


def test_probes_that_change_nothing_leave_the_clock_free_cache_the_same():
    """Without refreshes and with a probe at every row, everything is recomputed in every step: exact."""
    case = plain_case(frames=3, rows=3)
    strategy = adaptive(drift_bound=NEVER, probe_rows=99)
    assert_same(run(strategy, case), run(NoCache(), case), case)


def test_the_schedule_is_known_only_afterwards():
    assert adaptive().schedule(plain_case().steps()) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drift_bound": -0.1}, "`drift_bound` must be a number of at least 0, got -0.1"),
        ({"drift_bound": float("nan")}, "`drift_bound` must be a number"),
        ({"drift_bound": None}, "`drift_bound` must be a number of at least 0, got None"),
        ({"probe_rows": 0}, "`probe_rows` must be a whole number of at least 1"),
        ({"groups": 0}, "`groups` must be a whole number of at least 1"),
        ({"neighbourhood": -1}, "`neighbourhood` must be"),
    ],
)
def test_impossible_settings_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        MARSAdaptiveConfig(**changes)


@pytest.fixture(scope="module")
def model() -> VidLaDAForConditionalGeneration:
    return tiny_model()


def test_it_serves_by_name_and_refuses_what_the_model_has_not(model):
    inputs, arguments = example(model, 4), {"max_new_tokens": 8, "block_length": 4, "cache_strategy": "mars-adaptive"}
    lazy = model.generate(**inputs, **arguments, cache_config={"drift_bound": NEVER, "probe_rows": 1})
    assert lazy.shape == model.generate(**inputs, **arguments).shape
    with pytest.raises(ValueError, match="5 groups of layers .set by `groups`. are more than the 4 layers"):
        model.generate(**inputs, **arguments, cache_config={"groups": 5})
    with pytest.raises(ValueError, match="Unknown setting 'visual_intervals' in `cache_config` of 'mars-adaptive'"):
        model.generate(**inputs, **arguments, cache_config={"visual_intervals": [8]})
    with pytest.raises(ValueError, match="MARSAdaptiveCache takes a MARSAdaptiveConfig"):
        MARSAdaptiveCache(MARSCacheConfig())
