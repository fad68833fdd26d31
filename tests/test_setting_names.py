import pytest

from vidlada_hf.modeling.cache_strategies_vidlada import CACHE_STRATEGIES
from vidlada_hf.modeling.unmasking_vidlada import UNMASKING_STRATEGIES
from vidlada_hf.setting_names import CACHE_NAMES, UNMASKING_NUMBERS, check_dtype, parse_cache, parse_unmasking


def test_the_names_are_those_of_the_strategies_and_rules():
    assert list(CACHE_NAMES) == list(CACHE_STRATEGIES)
    assert list(UNMASKING_NUMBERS) == list(UNMASKING_STRATEGIES)
    for name, (_, fields) in UNMASKING_STRATEGIES.items():
        assert UNMASKING_NUMBERS[name] == (fields[0] if fields else None)


def test_names_may_be_followed_by_settings_and_numbers():
    assert parse_cache("mars") == ("mars", {}) and parse_cache('mars:{"anchors": 8}') == ("mars", {"anchors": 8})
    assert parse_unmasking("factor") == ("factor", None) and parse_unmasking("factor:2") == ("factor", 2.0)
    assert check_dtype("bfloat16") == "bfloat16"


@pytest.mark.parametrize(
    ("check", "text", "message"),
    [
        (parse_cache, "nars", "Unknown `cache_strategy` 'nars'; known are 'none', 'mars'"),
        (parse_cache, "mars:{", "are no JSON"),
        (parse_cache, "mars:8", "must be a JSON object"),
        (parse_unmasking, "treshold", "Unknown `unmasking` 'treshold'; known are 'quota'"),
        (parse_unmasking, "threshold:high", "'high' in 'threshold:high' is no number"),
        (parse_unmasking, "quota:2", "'quota' takes no number, got 2"),
        (check_dtype, "int3", "`dtype` must be one of 'auto', 'float32'"),
    ],
)
def test_mistakes_are_named(check, text, message):
    with pytest.raises(ValueError, match=message):
        check(text)
