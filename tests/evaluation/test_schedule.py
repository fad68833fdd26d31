import pytest

from vidlada_hf import VidLaDAGenerationConfig
from vidlada_hf.evaluation.schedule import draw_refreshes, plan_refreshes, plan_saving, print_refreshes

SETTINGS = VidLaDAGenerationConfig(max_new_tokens=8, block_length=4)
MARS = 'mars:{"visual_intervals": [null, 4], "text_intervals": [4, 2]}'


def test_the_printed_schedule_is_the_clock():
    lines = print_refreshes(plan_refreshes(MARS, SETTINGS)).splitlines()
    assert [line.split() for line in lines[:5]] == [
        ["step", "0"],
        ["visual", "group", "0", "#......."],
        ["visual", "group", "1", "#...#..."],
        ["text", "group", "0", "#...#..."],
        ["text", "group", "1", "#.#.#.#."],
    ]
    assert lines[-2:] == [
        "visual: 1, 2 of 8 steps, by group, shallow first",
        "text: 2, 4 of 8 steps, by group, shallow first",
    ]


def test_long_schedules_are_wrapped():
    lines = print_refreshes(plan_refreshes("dual", VidLaDAGenerationConfig(max_new_tokens=128))).splitlines()
    assert max(map(len, lines)) <= 80 and sum(line.count("#") for line in lines) == 2 * 4
    assert sum(line.startswith("step") for line in lines) == 2


@pytest.mark.parametrize("name", ["none", "prefix", "interval", "mars"])
def test_each_strategy_with_a_clock_has_a_picture(name, tmp_path):
    path = draw_refreshes(plan_refreshes(name, SETTINGS), name, tmp_path / "new" / f"{name}.png")
    assert path.stat().st_size > 3000


def test_no_schedule_and_no_such_strategy():
    with pytest.raises(ValueError, match="'mars-adaptive' decides as it goes"):
        plan_refreshes("mars-adaptive", SETTINGS)
    with pytest.raises(ValueError, match="Unknown `cache_strategy` 'nars'"):
        plan_refreshes("nars", SETTINGS)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ('{"proxy_layers": [40]}', "`proxy_layers` names layer 40; the text model has layers 0 to 31"),
        ('{"anchors": 500}', r"`anchors` \(500\) must not exceed the 210 rows of a frame"),
    ],
)
def test_what_the_model_cannot_have_is_refused(config, told):
    with pytest.raises(ValueError, match=told):
        plan_saving(f"mars:{config}", VidLaDAGenerationConfig(max_new_tokens=64), 32, 210)


def test_what_a_schedule_saves_on_paper():
    """A dual cache recomputes 4 of 128 steps as a whole, and 32 of 6,888 rows in the others."""
    settings = VidLaDAGenerationConfig(max_new_tokens=128)
    assert plan_saving("none", settings, 32, 210) == 1
    assert plan_saving("dual", settings, 32, 210) == pytest.approx(128 / (4 + 124 * 32 / 6888), rel=0.01)
    assert plan_saving("mars-adaptive", settings, 32, 210) is None
    never = 'mars:{"visual_intervals": [null], "text_intervals": [null]}'
    assert plan_saving(never, settings, 32, 210) > plan_saving("mars", settings, 32, 210) > 12
