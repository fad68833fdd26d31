import pytest
import torch

from moving_shapes.train.tiny_model import build_tiny
from vidlada_hf import DualCache, MARSCache, ThresholdUnmasking
from vidlada_hf.evaluation.answering import answer_all
from vidlada_hf.evaluation.decoding import (
    EXACT,
    DecodingRunner,
    DecodingSetup,
    FinishedBlock,
    combine,
    read_cache,
    read_unmasking,
)
from vidlada_hf.evaluation.questions import load_questions

ITEMS = load_questions(None, 3, 8)


@pytest.fixture(scope="module")
def tiny():
    model, processor = build_tiny()
    return model.eval(), processor


def test_contenders_as_they_are_typed():
    found = combine(["none", 'mars:{"anchors": 2}', "dual"], ["quota", "threshold:0.8"])
    assert [contender.name for contender in found] == [
        "none + quota",
        "none + threshold:0.8",
        'mars{"anchors": 2} + quota',
        'mars{"anchors": 2} + threshold:0.8',
        "dual + quota",
        "dual + threshold:0.8",
    ]
    strategy, rule = found[3].build()
    assert isinstance(strategy, MARSCache) and strategy.config.anchors == 2
    assert isinstance(rule, ThresholdUnmasking) and rule.threshold == 0.8
    assert isinstance(found[4].build()[0], DualCache)
    assert combine(["dual"], ["quota"])[0] == EXACT


@pytest.mark.parametrize(
    ("cache", "rule", "told"),
    [
        ("mras", "quota", "Unknown `cache_strategy` 'mras'"),
        ('mars:{"ancors": 2}', "quota", "Did you mean 'anchors'"),
        ("mars:[1]", "quota", "must be a JSON object"),
        ("mars:{", "quota", "are no JSON"),
        ("mars", "treshold", "Unknown `unmasking` 'treshold'"),
        ("mars", "threshold:high", "'high' in 'threshold:high' is no number"),
        ("mars", "threshold:-1", "`unmask_threshold` must be a number above 0"),
        ("mars", "quota:2", "'quota' takes no number"),
    ],
)
def test_mistakes_are_told_before_anything_runs(cache, rule, told):
    with pytest.raises(ValueError, match=told):
        combine([cache], [rule])
    assert read_cache("mars") == ("mars", {}) and read_unmasking("factor:2") == ("factor", 2.0)


def test_answers_are_those_that_users_get(tiny):
    denoiser = DecodingRunner(*tiny, 8, settings={"max_new_tokens": 16})
    ids = denoiser.take(denoiser.answer(denoiser.encode(ITEMS), EXACT))
    (texts,) = answer_all(*tiny, ITEMS, 8, max_new_tokens=16)
    assert denoiser.read(ids) == texts


def test_a_finished_block_ends_an_answer_as_the_whole_canvas_would(tiny):
    model, _ = tiny
    canvas = [model.config.mask_token_id] * 24
    canvas[3] = model.config.text_config.eos_token_id[1]  # an answer of at most three tokens
    settings = {"max_new_tokens": 24, "block_length": 8, "canvas": canvas}
    steps, answers = {}, {}
    for ending in ("block", "canvas"):
        denoiser, seen = DecodingRunner(*tiny, 8, ending, settings), []
        ids = denoiser.answer(denoiser.encode(ITEMS), EXACT, lambda _, seen=seen: seen.append)
        steps[ending], answers[ending] = len(seen), denoiser.take(ids)
    assert answers["block"] == answers["canvas"] and max(map(len, answers["block"])) <= 3
    assert steps == {"block": 7, "canvas": 23}  # one is given


def test_only_finished_blocks_with_an_end_count():
    mask, end = 1, 2
    rule = FinishedBlock([slice(1, 3), slice(3, 5)], [end], mask)
    rows = [[2, 5, 6, 1, 1], [2, 5, 2, 1, 1], [2, 1, 2, 1, 1], [2, 5, 6, 2, 1], [2, 5, 6, 2, 7]]
    assert rule(torch.tensor(rows)).tolist() == [False, True, False, False, True]


def test_impossible_settings(tiny):
    with pytest.raises(ValueError, match="`ending` must be one of 'stop', 'block', 'canvas', got 'never'"):
        DecodingRunner(*tiny, 8, "never")
    with pytest.raises(ValueError, match="`block_length` .5. does not divide"):
        DecodingRunner(*tiny, 8, settings={"max_new_tokens": 16, "block_length": 5})


def test_settings_of_a_contender_tell_it_apart():
    assert DecodingSetup("mars", {"anchors": 1}).name != DecodingSetup("mars").name
