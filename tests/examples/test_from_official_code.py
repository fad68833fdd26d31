from tests.examples.scripts import load


def test_official_names_and_ours_are_one_call():
    official, ours = load("from_official_code").main()
    assert official == ours and official.startswith("the yellow cross")
