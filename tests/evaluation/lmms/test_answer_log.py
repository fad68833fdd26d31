from pathlib import Path

from vidlada_hf.evaluation.lmms.answer_log import AnswerLog, answer_key


def test_a_run_goes_on_with_what_all_processes_kept(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "answers"
    for rank in (0, 1):
        AnswerLog(folder, rank).add(f"key {rank}", f"two\u2028lines {rank}", task="a")
    log = AnswerLog(folder, 1)
    assert [log.get(f"key {i}") for i in range(3)] == ["two\u2028lines 0", "two\u2028lines 1", None]


def test_a_line_that_was_cut_off_costs_that_answer_alone(tmp_path: Path) -> None:
    log = AnswerLog(tmp_path)
    log.add("first", "1")
    log.add("second", [0.5, True])
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text()[:-5])
    AnswerLog(tmp_path).add("third", "3")
    again = AnswerLog(tmp_path)
    assert [again.get(key) for key in ("first", "second", "third")] == ["1", None, "3"]


def test_nothing_is_kept_without_a_folder(tmp_path: Path) -> None:
    log = AnswerLog(None)
    log.add("key", "answer")
    assert log.get("key") == "answer" and AnswerLog(None).get("key") is None


def test_a_key_stands_for_all_that_an_answer_depends_on() -> None:
    about = {"chat": ["a", {"b": 1}], "settings": {"max_new_tokens": 2}}
    assert answer_key(about) == answer_key(dict(reversed(about.items())))
    assert len({answer_key(about), answer_key({**about, "settings": {"max_new_tokens": 3}}), answer_key({})}) == 3
