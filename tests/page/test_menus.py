import pytest

from vidlada_hf.modeling.cache_strategies_vidlada import CACHE_STRATEGIES
from vidlada_hf.modeling.unmasking_vidlada import UNMASKING_STRATEGIES
from vidlada_hf.page.menus import LABELS, explain, menu


def test_menus_offer_all_that_has_a_name() -> None:
    assert {setting: menu(setting) for setting in LABELS} == {
        "cache_strategy": list(CACHE_STRATEGIES),
        "unmasking": list(UNMASKING_STRATEGIES),
    }


@pytest.mark.parametrize(("setting", "name"), [(setting, name) for setting in LABELS for name in menu(setting)])
def test_every_name_is_explained(setting: str, name: str) -> None:
    text = explain(setting, name)
    assert 30 < len(text) < 250 and text[0].isupper() and text.endswith(".") and "Named" not in text and "`" not in text


def test_the_source_comes_last() -> None:
    assert explain("cache_strategy", "dual").endswith(" only the block (Fast-dLLM).")
