from vidlada_hf.page.stopping import StopButtons


def test_a_button_stops_what_was_asked_before_and_by_the_same_visitor() -> None:
    buttons = StopButtons()
    running, waiting, of_another = buttons.flag("a"), buttons.flag("a"), buttons.flag("b")
    buttons.press("a")
    later = buttons.flag("a")
    assert [flag.is_set() for flag in (running, waiting, of_another, later)] == [True, True, False, False]
    buttons.press("c")  # never asked for anything
