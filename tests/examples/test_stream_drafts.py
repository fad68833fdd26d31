import importlib.util
from pathlib import Path

FILE = Path(__file__).parents[2] / "examples" / "stream_drafts.py"


def test_each_draft_is_printed_and_the_answer_is_about_the_clip(capsys):
    spec = importlib.util.spec_from_file_location("stream_drafts", FILE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    answer = example.main()
    assert answer == "the yellow cross moves down."
    *drafts, last = capsys.readouterr().out.splitlines()
    assert drafts and all(draft.startswith(f"step {i}: ") for i, draft in enumerate(drafts, 1))
    assert "_" in drafts[0] and "_" not in drafts[-1] and last == f"Answer: {answer}"
