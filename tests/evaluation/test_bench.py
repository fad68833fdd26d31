import json
from functools import partial

import pytest

from tests.clips import encode
from vidlada_hf.evaluation import bench
from vidlada_hf.evaluation.bench import BenchOptions, answer_with_each, measure_costs, run_bench, summarize_answers
from vidlada_hf.evaluation.decoding import EXACT, DecodingRunner, DecodingSetup, combine_setups
from vidlada_hf.evaluation.measure import measure_machine
from vidlada_hf.evaluation.questions import VideoQuestion
from vidlada_hf.evaluation.report import bench_table, draw_bench

CLOSE = DecodingSetup("mars", {"visual_intervals": [1], "text_intervals": [1], "neighborhood": 8})
SETUPS = [*combine_setups(["dual"], ["quota", "threshold:0.3"]), CLOSE]
OPTIONS = BenchOptions(rounds=2, timed_questions=1)


@pytest.fixture(scope="module", autouse=True)
def quickly_measured_machine():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "measure_machine", partial(measure_machine, quick=True))
        yield


@pytest.fixture(scope="module")
def done(runner, questions, tmp_path_factory):
    """(path, data) of a finished benchmark."""
    path = tmp_path_factory.mktemp("bench") / "results.json"
    return path, run_bench(runner, questions, SETUPS, path, "tiny", OPTIONS)


@pytest.fixture
def built(monkeypatch):
    """The names of the set-ups that run, in turn."""
    names, build = [], DecodingSetup.build

    def note(self):
        names.append(self.name)
        return build(self)

    monkeypatch.setattr(DecodingSetup, "build", note)
    monkeypatch.setattr(DecodingSetup, "__post_init__", lambda self: None)  # which builds both to check them
    return names


def test_every_setup_is_measured(done):
    path, data = done
    assert json.loads(path.read_text()) == json.loads(json.dumps(data))
    assert list(data["results"]) == ["none + quota", "dual + quota", "dual + threshold:0.3", CLOSE.name]
    exact, dual, quick, close = (entry["summary"] for entry in data["results"].values())
    assert exact["speedup"] == exact["flops_saving"] == exact["agreement"]["tokens"] == 1 and exact["kept_bytes"] == 0
    assert exact["accuracy"]["all"]["lost"] == exact["accuracy"]["all"]["gained"] == 0
    assert close["agreement"] == {"tokens": 1, "answers": 1}  # recomputes everything, so it must agree
    assert dual["flops_saving"] > 2 and dual["kept_bytes"] > 0 and dual["tokens_per_forward"] == 1
    assert quick["tokens_per_forward"] >= 1 and quick["accuracy"]["all"]["questions"] == 3
    for summary in (exact, dual, quick, close):
        assert summary["flops_planned"] == pytest.approx(summary["flops"], rel=0.01)
        assert all(summary[name] > 0 for name in ("floor_seconds", "seconds", "live_bytes"))
    entry = data["results"]["dual + quota"]
    assert len(entry["seconds"]) == len(entry["reference_seconds"]) == 2 and len(entry["ids"]) == 3


def test_a_finished_bench_runs_nothing_again_and_a_new_setup_alone_is_run(runner, questions, done, built, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(done[0].read_text())
    run_bench(runner, questions, SETUPS, path, "tiny", OPTIONS)
    assert built == []
    data = run_bench(runner, questions, [*SETUPS, DecodingSetup("prefix")], path, "tiny", OPTIONS)
    assert set(built) == {"prefix + quota", EXACT.name}  # exact decoding is timed beside it
    assert built.count("prefix + quota") == 3 + 2 + 1 and built.count(EXACT.name) == 1 + 2  # one says how long it takes
    assert data["results"]["prefix + quota"]["summary"]["speedup"] > 0
    assert len(data["results"][EXACT.name]["seconds"]) == 2


def test_an_interrupted_bench_goes_on(runner, questions, built, monkeypatch, tmp_path):
    path, generate = tmp_path / "results.json", DecodingRunner.generate

    def failing(self, *args, **kwargs):
        if len(built) == 4:
            built.append("interrupted")
            raise KeyboardInterrupt
        return generate(self, *args, **kwargs)

    monkeypatch.setattr(DecodingRunner, "generate", failing)
    options, setups = BenchOptions(rounds=1, timed_questions=1), [DecodingSetup("dual")]
    with pytest.raises(KeyboardInterrupt):
        run_bench(runner, questions[:2], setups, path, "tiny", options)
    data = run_bench(runner, questions[:2], setups, path, "tiny", options)
    first, again = built[: built.index("interrupted")], built[built.index("interrupted") + 1 :]
    assert first == [EXACT.name, EXACT.name, "dual + quota", EXACT.name]  # the first says how long it takes
    assert again[1:3] == [EXACT.name, "dual + quota"] and len(again) == 1 + 2 + 2 + 2  # one question is not asked again
    assert all("agreement" in entry["summary"] for entry in data["results"].values())


def test_how_long_it_takes_is_told_first(runner, questions, built, tmp_path, capsys):
    options, results = BenchOptions(rounds=3, timed_questions=1), {EXACT.name: {}, "dual + quota": {"seconds": [1.0]}}
    setups = [EXACT, DecodingSetup("dual")]
    seconds = bench.expected_seconds(runner, questions, setups, results, options)
    assert seconds > 0 and built == [EXACT.name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "clock", lambda run, device: 10.0)
        answers = 2 * len(questions) + 3 + 2 + 2  # asked, timed, counted
        assert bench.expected_seconds(runner, questions, setups, results, options) == 10 * answers
        run_bench(runner, questions[:1], setups[1:], tmp_path / "results.json", "tiny", options)
    assert "This may take about 1.7 minutes" in capsys.readouterr().err
    assert [bench.format_duration(s) for s in (0.4, 89, 600, 9000)] == [
        "a few seconds",
        "about 89 seconds",
        "about 10 minutes",
        "about 2.5 hours",
    ]


def test_another_setup_is_refused(runner, questions, done):
    path, _ = done
    with pytest.raises(ValueError, match="results.json was made with `timed_questions` 1, and now it is 2"):
        run_bench(runner, questions, SETUPS, path, "tiny", BenchOptions(rounds=2, timed_questions=2))
    other = [VideoQuestion(questions[1].video, questions[0].question, questions[0].answers), *questions[1:]]
    with pytest.raises(ValueError, match="results.json was made with `questions_digest`"):
        run_bench(runner, other, SETUPS, path, "tiny", OPTIONS)
    with pytest.raises(ValueError, match="`rounds` must be at least 1, got 0"):
        BenchOptions(rounds=0)


def test_questions_without_answers_are_compared_by_agreement_alone(tiny, tmp_path):
    runner = DecodingRunner(*tiny, 8, "canvas", {"max_new_tokens": 2})
    question = VideoQuestion(encode(tmp_path / "clip.mp4"), "What?")
    setups, options = [DecodingSetup("dual")], BenchOptions(rounds=1)
    data = run_bench(runner, [question], setups, tmp_path / "r.json", "tiny", options)
    assert all(entry["summary"]["accuracy"] is None for entry in data["results"].values())
    assert "lost" not in bench_table(data)
    draw_bench(data, tmp_path / "plot.svg")


def test_answers_in_batches_are_those_one_by_one(runner, questions):
    results = []
    for batch_size in (1, 2):
        results.append({})
        answer_with_each(runner, questions, SETUPS, results[-1], lambda: None, batch_size)
    assert results[0] == results[1] and list(results[0]) == [setup.name for setup in SETUPS]


def test_answers_are_judged_by_type(questions):
    exact = {"ids": ["1", "2 3", "4"], "texts": ["red", "disc", "right"]}
    found = {"ids": ["1", "2 5", "4"], "texts": ["red", "bar", "right"]}
    summary = summarize_answers(questions, found, exact)
    assert summary["agreement"] == {"tokens": round(2.5 / 3, 4), "answers": round(2 / 3, 4)}
    assert {type: (c["lost"], c["accuracy"]) for type, c in summary["accuracy"].items()} == {
        "color": (0, 1),
        "shape": (1, 0),
        "motion": (0, 0),
        "all": (1, 0.3333),
    }


class FixedRun:
    """A run of known seconds."""

    def __init__(self, seconds, log, **counts):
        self.seconds, self.log, self.counts = seconds, log, counts

    def count(self):
        self.log.append("count")
        return {"tokens": 8} | self.counts

    def time(self):
        self.log.append("time")
        return self.seconds, 100


def test_runs_are_timed_in_turn_counted_once_and_summarized():
    log, results, saved = [], {}, []
    runs = {"exact": FixedRun(4.0, log, flops=1000), "fast": FixedRun(0.5, log, flops=10), "other": FixedRun(2.0, log)}
    measure_costs(runs, "exact", 2, results, lambda: saved.append(1))
    assert log == ["time"] * 6 + ["count"] * 3 and len(saved) == 5
    fast, other = results["fast"]["summary"], results["other"]["summary"]
    assert (fast["speedup"], fast["flops_saving"], fast["tokens_per_second"], fast["peak_bytes"]) == (8, 100, 16, 100)
    assert other["flops_saving"] is None
    log.clear()
    measure_costs(runs, "exact", 2, results, lambda: None, warm_up=True)
    assert log == []
    del results["fast"]["counts"], results["fast"]["summary"]  # as after a change that costs other operations
    measure_costs(runs, "exact", 2, results, lambda: None)
    assert log == ["count"] and results["fast"]["summary"]["flops_saving"] == 100


def test_a_shared_video_stands_beside_exact_decoding_by_its_name(runner, questions, tmp_path):
    first, second, third = questions
    asked = [first, second, VideoQuestion(first.video, "Which shape?", third.answers, "shape")]
    path = tmp_path / "results.json"
    setups = combine_setups(["none", "mars"], ["quota"], share_video=True)
    data = run_bench(runner, asked, setups, path, "tiny", BenchOptions(rounds=1, timed_questions=3, batch_size=2))
    names = ["none + quota", "none, shared video + quota", "mars, shared video + quota"]
    assert list(data["results"]) == names and "not exact" in data["setup"]["videos"]
    assert [question["question"] for question in data["questions"]] == ["What color?", "Which shape?", second.question]
    exact, shared, _ = (entry["summary"] for entry in data["results"].values())
    assert shared["flops"] < exact["flops"] / 2 and shared["flops_planned"] is None
    assert exact["agreement"]["tokens"] == 1 and shared["accuracy"]["all"]["questions"] == 3
    assert all(name in bench_table(data) for name in names) and draw_bench(data, tmp_path / "plot.png").is_file()
