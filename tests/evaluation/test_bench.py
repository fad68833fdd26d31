import json

import pytest
import torch

from moving_shapes.train.tiny_model import build_tiny
from vidlada_hf.evaluation import strategy_bench
from vidlada_hf.evaluation.bench import count_costs, run_bench, table
from vidlada_hf.evaluation.cost_model import Machine
from vidlada_hf.evaluation.decoding import EXACT, DecodingRunner, DecodingSetup, combine
from vidlada_hf.evaluation.questions import Asked, load_questions
from vidlada_hf.evaluation.random_model import SMALL_TEXT, build_random_model, random_denoiser, random_question
from vidlada_hf.evaluation.report import draw_bench

CLOSE = DecodingSetup("mars", {"visual_intervals": [1], "text_intervals": [1], "neighborhood": 8})
CONTENDERS = [*combine(["dual"], ["quota", "threshold:0.3"]), CLOSE]


@pytest.fixture(scope="module")
def denoiser():
    model, processor = build_tiny()
    return DecodingRunner(model.eval(), processor, 8, "canvas", {"max_new_tokens": 8, "block_length": 4})


@pytest.fixture(scope="module")
def done(denoiser, tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "results.json"
    data = run_bench(denoiser, load_questions(None, 3, 8), CONTENDERS, path, "tiny", rounds=2, timed=2)
    return path, data


def test_every_contender_is_measured(done):
    path, data = done
    assert json.loads(path.read_text()) == json.loads(json.dumps(data))
    assert list(data["contenders"]) == ["none + quota", "dual + quota", "dual + threshold:0.3", CLOSE.name]
    exact, dual, quick, close = (entry["summary"] for entry in data["contenders"].values())
    assert exact["speedup"] == exact["flops_saving"] == exact["agreement"]["tokens"] == 1 and exact["kept_bytes"] == 0
    assert exact["accuracy"]["all"]["lost"] == exact["accuracy"]["all"]["gained"] == 0
    assert close["agreement"] == {"tokens": 1, "answers": 1}  # recomputes everything, so it must agree
    assert dual["flops_saving"] > 2 and dual["kept_bytes"] > 0 and dual["tokens_per_forward"] == 1
    assert quick["tokens_per_forward"] >= 1 and quick["accuracy"]["all"]["questions"] == 3
    for summary in (exact, dual, quick, close):
        assert summary["flops_planned"] == pytest.approx(summary["flops"], rel=0.01)
        assert all(summary[name] > 0 for name in ("floor_seconds", "seconds", "live_bytes"))
    rows = data["contenders"]["dual + quota"]
    assert len(rows["seconds"]) == len(rows["reference_seconds"]) == 2 and len(rows["ids"]) == 3


@pytest.mark.parametrize("intervals", [(128, 64, 32, 16), (4, 2, 1, 1)])  # the second: chunk attention within 3 steps
def test_mars_needs_no_more_memory_than_exact_decoding_and_keys_values_and_boundaries(intervals):
    model = build_random_model(SMALL_TEXT, torch.device("cpu"), torch.float32)
    denoiser, question = random_denoiser(model, 4, 4, 2), random_question(model, 4)
    settings = {"visual_intervals": intervals, "text_intervals": intervals}
    exact, mars = (
        count_costs(denoiser, [question], contender, Machine(1.0, 1.0), limit=3)  # a block's first step among them
        for contender in (EXACT, DecodingSetup("mars", settings))
    )
    text, rows = model.config.text_config, question.inputs["input_ids"].shape[1] + 4
    a_tensor = rows * text.hidden_size * 4
    keys_and_values, boundaries = 2 * text.num_hidden_layers * a_tensor, (len(intervals) - 1) * a_tensor
    assert mars["live_bytes"] <= exact["live_bytes"] + keys_and_values + boundaries < 2 * mars["live_bytes"]


def test_a_finished_bench_runs_nothing_again_and_a_newcomer_alone_is_run(denoiser, done, monkeypatch, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(done[0].read_text())
    ran = []
    answer = DecodingRunner.answer
    monkeypatch.setattr(
        DecodingRunner, "answer", lambda self, e, c, w=None: ran.append(c.name) or answer(self, e, c, w)
    )
    items = load_questions(None, 3, 8)
    run_bench(denoiser, items, CONTENDERS, path, "tiny", rounds=2, timed=2)
    assert ran == []
    data = run_bench(denoiser, items, [*CONTENDERS, DecodingSetup("prefix")], path, "tiny", rounds=2, timed=2)
    assert set(ran) == {"prefix + quota", EXACT.name}  # exact decoding is timed beside it
    assert ran.count("prefix + quota") == 3 + 2 + 2 * 2 and ran.count(EXACT.name) == 2 * 2
    assert data["contenders"]["prefix + quota"]["summary"]["speedup"] > 0
    assert len(data["contenders"][EXACT.name]["seconds"]) == 2


def test_an_interrupted_bench_goes_on(denoiser, monkeypatch, tmp_path):
    items, path, calls = load_questions(None, 2, 8), tmp_path / "results.json", []
    answer = DecodingRunner.answer

    def failing(self, encoded, contender, watch=None):
        calls.append(contender.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return answer(self, encoded, contender, watch)

    monkeypatch.setattr(DecodingRunner, "answer", failing)
    contenders = [DecodingSetup("dual")]
    with pytest.raises(KeyboardInterrupt):
        run_bench(denoiser, items, contenders, path, "tiny", rounds=1, timed=1)
    data = run_bench(denoiser, items, contenders, path, "tiny", rounds=1, timed=1)
    answers = calls[:2] + calls[3:5]  # the first question was not asked again
    assert answers == [EXACT.name, "dual + quota"] * 2
    assert all("summary" in entry for entry in data["contenders"].values())


def test_another_setup_is_refused(denoiser, done):
    path, _ = done
    with pytest.raises(ValueError, match="results.json was measured with `timed_questions` 2, and now it is 1"):
        run_bench(denoiser, load_questions(None, 3, 8), CONTENDERS, path, "tiny", rounds=2, timed=1)
    with pytest.raises(ValueError, match="`rounds` must be at least 1, got 0"):
        run_bench(denoiser, load_questions(None, 3, 8), CONTENDERS, path, "tiny", rounds=0)


def test_the_table_and_the_picture(done, tmp_path):
    _, data = done
    head, _, *rows = table(data).splitlines()
    assert len(rows) == 4 and all(row.count("|") == head.count("|") for row in rows)
    assert "dual + threshold:0.3" in rows[2] and "100.0 %" in rows[3]
    assert draw_bench(data, tmp_path / "new" / "plot.png").stat().st_size > 5000


def test_questions_without_answers_are_compared_by_agreement_alone(denoiser, tmp_path):
    from moving_shapes import MovingShapes

    path = MovingShapes("test", 1, video_folder=tmp_path)[0].path
    contenders = [DecodingSetup("dual")]
    data = run_bench(denoiser, [Asked(path, "What?")], contenders, tmp_path / "r.json", "tiny", rounds=1, timed=1)
    assert all(entry["summary"]["accuracy"] is None for entry in data["contenders"].values())
    assert "lost" not in table(data)
    draw_bench(data, tmp_path / "plot.svg")


def test_counts_do_not_depend_on_the_machine(denoiser):
    batches = [denoiser.encode(load_questions(None, 1, 8))]
    machine = strategy_bench.Machine(1e9, 1e9)
    first, second = (strategy_bench.count_costs(denoiser, batches, CLOSE, machine) for _ in range(2))
    assert first == second and first["steps"] == first["tokens"] == 8
