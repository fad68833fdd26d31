import threading

import pytest
import torch

from tests.clips import encode, noise
from vidlada_hf import DualCache, MARSCache, ThresholdUnmasking, read_video
from vidlada_hf.evaluation.decoding import (
    EXACT,
    CompletedBlock,
    DecodingRunner,
    DecodingSetup,
    answer_questions,
    combine_setups,
    group_by_video,
    prepare_inputs,
    split_batches,
)
from vidlada_hf.evaluation.questions import VideoQuestion
from vidlada_hf.hub.locate import EMBEDDED_CHECKPOINT
from vidlada_hf.modeling.cache_strategies_vidlada import CACHE_STRATEGIES
from vidlada_hf.modeling.unmasking_vidlada import UNMASKING_STRATEGIES


def test_setups_as_they_are_typed():
    setups = combine_setups(["none", 'mars:{"anchors": 2}', "dual"], ["quota", "threshold:0.8"])
    assert [setup.name for setup in setups] == [
        "none + quota",
        "none + threshold:0.8",
        'mars{"anchors": 2} + quota',
        'mars{"anchors": 2} + threshold:0.8',
        "dual + quota",
        "dual + threshold:0.8",
    ]
    strategy, rule = setups[3].build()
    assert isinstance(strategy, MARSCache) and strategy.config.anchors == 2
    assert isinstance(rule, ThresholdUnmasking) and rule.threshold == 0.8
    assert isinstance(setups[4].build()[0], DualCache)
    assert combine_setups(["dual"], ["quota"])[0] == EXACT


def test_all_setups_by_default():
    alone = len(CACHE_STRATEGIES) - 1  # strategies that a rule is left out with
    assert len(combine_setups()) == len(CACHE_STRATEGIES) * len(UNMASKING_STRATEGIES) - alone
    assert {setup.unmasking for setup in combine_setups(["none"])} == set(UNMASKING_STRATEGIES)
    assert {setup.unmasking for setup in combine_setups(["dual"])[1:]} == set(UNMASKING_STRATEGIES) - {"wino"}
    assert [setup.name for setup in combine_setups(None, ["wino:0.7"])] == ["none + quota", "none + wino:0.7"]


@pytest.mark.parametrize(
    ("cache", "rule", "message"),
    [
        ("mras", "quota", "Unknown `cache_strategy` 'mras'"),
        ('mars:{"ancors": 2}', "quota", "Did you mean .anchors"),
        ("mars:[1]", "quota", "must be a JSON object"),
        ("mars:{", "quota", "are no JSON"),
        ("mars", "treshold", "Unknown `unmasking` 'treshold'"),
        ("mars", "threshold:high", "'high' in 'threshold:high' is no number"),
        ("mars", "threshold:-1", "`unmask_threshold` must be a number above 0"),
        ("mars", "quota:2", "'quota' takes no number, got 2"),
        ("mars", "wino", "WINOUnmasking .* MARSCache .* take `cache_strategy='none'`"),
        ("none", "wino:2", "`unmask_draft_threshold` is a probability"),
    ],
)
def test_mistakes_raise_before_anything_runs(cache, rule, message):
    with pytest.raises(ValueError, match=message):
        combine_setups([cache], [rule])


def test_the_settings_of_a_setup_are_in_its_name():
    assert DecodingSetup("mars", {"anchors": 1}).name != DecodingSetup("mars").name


def test_answers_are_those_that_users_get(tiny, questions):
    runner = DecodingRunner(*tiny, 8, settings={"max_new_tokens": 8})
    ids = runner.cut_answers(runner.generate(runner.encode(questions), *EXACT.build()))
    (texts,) = answer_questions(*tiny, questions, 8, max_new_tokens=8)
    assert runner.decode(ids) == texts
    one_by_one = list(answer_questions(*tiny, questions, 8, batch_size=1, max_new_tokens=8))
    assert one_by_one == [[text] for text in texts]


@pytest.mark.parametrize("step", ["generate", "get_video_features"])
def test_the_next_videos_are_read_while_the_model_works(tiny, questions, monkeypatch, step):
    model, processor = tiny
    read, work = [threading.Event() for _ in range(2)], getattr(model, step)

    def read_and_tell(messages, **options):
        next(event for event in read if not event.is_set()).set()
        return type(processor).apply_chat_template(processor, messages, **options)

    def wait_and_work(*args, **options):
        assert read[1].wait(20), "the second batch waits for the first"
        return work(*args, **options)

    monkeypatch.setattr(processor, "apply_chat_template", read_and_tell)
    monkeypatch.setattr(model, step, wait_and_work)
    two = list(questions[:2])
    if step == "generate":
        batches = answer_questions(model, processor, two, 8, batch_size=1, max_new_tokens=8)
    else:
        batches = DecodingRunner(model, processor, 8).encode_all([[question] for question in two])
    assert len(list(batches)) == 2


@pytest.fixture
def about_two_videos():
    first, second = noise(8), noise(6, seed=1)
    return [VideoQuestion(video, text) for video, text in ((first, "A?"), (second, "B?"), (first, "C?"), (first, "D"))]


def test_questions_about_one_video_are_grouped(about_two_videos):
    grouped = group_by_video(about_two_videos)
    assert [question.question for question in grouped] == ["A?", "C?", "D", "B?"]
    assert split_batches(grouped, 2) == [slice(0, 2), slice(2, 4)]
    assert split_batches(grouped, 2, share_video=True) == [slice(0, 2), slice(2, 3), slice(3, 4)]
    assert split_batches(about_two_videos, 8, share_video=True) == [slice(0, 1), slice(1, 2), slice(2, 4)]


def test_a_shared_video_gives_what_each_question_gets_by_it_alone(tiny, about_two_videos):
    model, processor = tiny
    expected = []
    for question in about_two_videos:
        inputs = prepare_inputs(processor, [question], 8)
        output = model.generate(**inputs, share_video=True, max_new_tokens=8)
        expected.append(processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())
    found = [
        text for texts in answer_questions(*tiny, about_two_videos, 8, 3, True, max_new_tokens=8) for text in texts
    ]
    assert found == expected
    runner, setup = DecodingRunner(*tiny, 8, settings={"max_new_tokens": 8}), DecodingSetup(share_video=True)
    batch = runner.encode(about_two_videos[2:], share_video=True)
    ids = runner.cut_answers(runner.generate(batch, *setup.build(), share_video=True))
    assert runner.decode(ids) == expected[2:] and setup.name == "none, shared video + quota"
    assert batch.features[0] is batch.features[1]  # encoded once


def test_a_checkpoint_by_its_name():
    runner = DecodingRunner.from_pretrained(None, 8, "bfloat16", stop_after="canvas", settings={"max_new_tokens": 32})
    assert runner.model.name_or_path == str(EMBEDDED_CHECKPOINT) and runner.model.dtype == torch.bfloat16
    assert (runner.stop_after, runner.config.max_new_tokens, runner.config.unmasking) == ("canvas", 32, "threshold")
    with pytest.raises(FileNotFoundError, match="no/such/folder is no folder"):
        DecodingRunner.from_pretrained("no/such/folder", 8)


def test_a_completed_block_ends_an_answer_as_the_whole_canvas_would(tiny, questions):
    model, _ = tiny
    canvas = [model.config.mask_token_id] * 24
    canvas[3] = model.config.text_config.eos_token_id[1]  # an answer of at most three tokens
    settings = {"max_new_tokens": 24, "block_length": 8, "canvas": canvas}
    steps, answers = {}, {}
    for stop_after in ("block", "canvas"):
        runner, outputs = DecodingRunner(*tiny, 8, stop_after, settings), []
        ids = runner.generate(runner.encode(questions), *EXACT.build(), outputs.append)
        steps[stop_after], answers[stop_after] = len(outputs), runner.cut_answers(ids)
    assert answers["block"] == answers["canvas"] and max(map(len, answers["block"])) <= 3
    assert steps == {"block": 7, "canvas": 23}  # one is given


def test_only_completed_blocks_with_an_end_count():
    mask, end = 1, 2
    rule = CompletedBlock([slice(1, 3), slice(3, 5)], [end], mask)
    ids = [[2, 5, 6, 1, 1], [2, 5, 2, 1, 1], [2, 1, 2, 1, 1], [2, 5, 6, 2, 1], [2, 5, 6, 2, 7]]
    assert rule(torch.tensor(ids)).tolist() == [False, True, False, False, True]


@pytest.mark.parametrize("max_steps", [1, 3, 8, 9])
def test_so_many_steps_are_those_that_all_begin_with(runner, questions, max_steps):
    batch, outputs, whole = runner.encode(questions), [], []
    answers = runner.generate(batch, *EXACT.build(), outputs.append, max_steps)
    runner.generate(batch, *EXACT.build(), whole.append)
    assert len(outputs) == min(max_steps, 8) and len(whole) == 8
    assert torch.equal(outputs[-1].canvas, whole[: len(outputs)][-1].canvas)
    assert (answers == runner.model.config.mask_token_id).sum(-1).tolist() == [8 - len(outputs)] * 3


def test_impossible_settings(tiny):
    with pytest.raises(ValueError, match="`stop_after` must be one of 'answer', 'block', 'canvas', got 'never'"):
        DecodingRunner(*tiny, 8, "never")
    with pytest.raises(ValueError, match="`block_length` .5. does not divide"):
        DecodingRunner(*tiny, 8, settings={"max_new_tokens": 16, "block_length": 5})


def test_a_video_may_be_a_file_its_content_or_frames(tiny, tmp_path):
    path = encode(tmp_path / "clip.mp4", frames=8)
    frames = read_video(str(path), lambda video: range(8))[0]
    runner = DecodingRunner(*tiny, 8)
    batches = [runner.encode([VideoQuestion(video, "What?")]) for video in (path, path.read_bytes(), frames)]
    for batch in batches[1:]:
        assert torch.equal(batch.inputs["input_ids"], batches[0].inputs["input_ids"])
        assert torch.equal(batch.features[0], batches[0].features[0])
