"""Where lmms-eval is not installed; `tests/nightly/test_lmms_eval.py` runs it."""

from importlib.util import find_spec

import pytest


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "No benchmark is named"),
        (("nowhere", "--tasks", "mvbench"), "nowhere is no folder"),
    ],
)
def test_eval_refuses_in_a_line(vidlada, arguments: tuple[str, ...], reason: str) -> None:
    code, out, message = vidlada("eval", *arguments)
    assert (code, out, message.count("\n")) == (1, "", 0) and reason in message


@pytest.mark.skipif(find_spec("lmms_eval") is not None, reason="lmms-eval is installed")
def test_eval_says_how_to_get_lmms_eval(vidlada, checkpoint) -> None:
    code, out, message = vidlada("eval", checkpoint, "--tasks", "mvbench")
    assert (code, out) == (1, "") and "`make eval-env`" in message
