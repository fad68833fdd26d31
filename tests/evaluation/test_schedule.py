import pytest

from vidlada_hf import VidLaDAGenerationConfig
from vidlada_hf.evaluation.schedule import draw_refreshes, format_refreshes, plan_refreshes, plan_saving
from vidlada_hf.modeling.cache_strategies_vidlada import resolve_cache_strategy as strategy
from vidlada_hf.modeling.cache_vidlada import DenoisingCache

SETTINGS = VidLaDAGenerationConfig(max_new_tokens=8, block_length=4)
LONG = VidLaDAGenerationConfig(max_new_tokens=128)
MARS = {"visual_intervals": [None, 4], "text_intervals": [4, 2]}


class Undecided(DenoisingCache):
    """Decides as it goes."""

    def denoise(self, text_model, inputs_embeds, step):
        raise NotImplementedError


def test_the_printed_schedule():
    lines = format_refreshes(plan_refreshes(strategy("mars", MARS), SETTINGS)).splitlines()
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
    lines = format_refreshes(plan_refreshes(strategy("dual"), LONG)).splitlines()
    assert max(map(len, lines)) <= 80 and sum(line.count("#") for line in lines) == 2 * 4
    assert sum(line.startswith("step") for line in lines) == 2


@pytest.mark.parametrize("name", ["none", "prefix", "interval", "mars"])
def test_each_strategy_with_a_schedule_has_a_picture(name, tmp_path):
    path = draw_refreshes(plan_refreshes(strategy(name), SETTINGS), name, tmp_path / "new" / f"{name}.png")
    assert path.stat().st_size > 3000


def test_a_strategy_that_decides_as_it_goes_has_no_schedule():
    with pytest.raises(ValueError, match="Undecided decides as it goes"):
        plan_refreshes(Undecided(), SETTINGS)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"proxy_layers": [40]}, "`proxy_layers` names layer 40; the text model has layers 0 to 31"),
        ({"anchors": 500}, r"`anchors` \(500\) must not exceed the 210 tokens of a frame"),
    ],
)
def test_what_the_model_cannot_have_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        plan_saving(strategy("mars", config), VidLaDAGenerationConfig(max_new_tokens=64), 32, 210)


def test_what_a_schedule_saves_on_paper():
    """A dual cache recomputes 4 of 128 steps as a whole, and 32 of 6,888 tokens in the others."""
    assert plan_saving(strategy("none"), LONG, 32, 210) == 1
    assert plan_saving(strategy("dual"), LONG, 32, 210) == pytest.approx(128 / (4 + 124 * 32 / 6888), rel=0.01)
    assert plan_saving(Undecided(), LONG, 32, 210) is None
    never = strategy("mars", {"visual_intervals": [None], "text_intervals": [None]})
    assert plan_saving(never, LONG, 32, 210) > plan_saving(strategy("mars"), LONG, 32, 210) > 12
