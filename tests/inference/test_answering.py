import pickle

import pytest
import torch

from tests.clips import encode
from tests.tiny_models import write_tiny_checkpoint
from vidlada_hf.inference.answering import VideoAnswerer
from vidlada_hf.inference.ask import ask
from vidlada_hf.inference.ray_data import RayVideoAnswerer
from vidlada_hf.inference.video_list import Request

SETTINGS = {"max_new_tokens": 8, "block_length": 4}
QUESTION = "What?"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(write_tiny_checkpoint(tmp_path_factory.mktemp("answering") / "tiny"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Videos of 1 to 6 frames at one frame a second."""
    folder = tmp_path_factory.mktemp("clips")
    return [str(encode(folder / f"{frames}.mp4", frames=frames, fps=1)) for frames in (3, 1, 6, 2)]


@pytest.fixture(scope="module")
def answerer(checkpoint):
    return VideoAnswerer(checkpoint, {"fps": 1}, batch_size=2, workers=2, **SETTINGS)


def collect(answerer, requests):
    return {outcome.request: outcome for batch in answerer.answer(requests) for outcome in batch}


def test_each_gets_the_answer_that_it_gets_alone(answerer, checkpoint, clips):
    requests = [Request(clip, clip, QUESTION) for clip in clips]
    found = collect(answerer, requests)
    alone = [ask(clip, QUESTION, checkpoint, fps=1, **SETTINGS).answer for clip in clips]
    assert [found[request].answer for request in requests] == alone and len(set(alone)) > 1
    assert not any(outcome.error for outcome in found.values())


def test_bad_requests_are_errors_of_their_own(answerer, clips, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video" * 99)
    bad = [Request("bad", str(tmp_path / "bad.mp4"), QUESTION), Request("gone", "gone.mp4", QUESTION)]
    bad.append(Request("long", clips[0], "x" * 100_000))
    requests = [bad[0], *(Request(clip, clip, QUESTION) for clip in clips), *bad[1:]]
    found = collect(answerer, requests)
    assert set(found) == set(requests)
    for request, problem in zip(bad, ("bad.mp4", "no such file", "has 16384 positions"), strict=True):
        assert found[request].answer is None and problem in found[request].error
    assert all(found[request].answer is not None for request in requests if request not in bad)


def out_of_gpu_memory():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def out_of_cpu_memory():
    torch.empty(2**60, dtype=torch.uint8)


@pytest.mark.parametrize("run_out", [out_of_gpu_memory, out_of_cpu_memory])
def test_a_batch_that_does_not_fit_is_answered_in_parts(answerer, clips, monkeypatch, run_out):
    sizes, generate = [], answerer.network.generate

    def out_of_memory(input_ids, **arguments):
        sizes.append(len(input_ids))
        if len(input_ids) > 1:
            run_out()
        return generate(input_ids, **arguments)

    requests = [Request(clip, clip, QUESTION) for clip in clips[:2]]
    expected = collect(answerer, requests)
    monkeypatch.setattr(answerer.network, "generate", out_of_memory)
    assert collect(answerer, requests) == expected and sizes == [2, 1, 1]


def test_a_video_is_read_and_encoded_once_for_all_questions(answerer, clips, monkeypatch):
    towers, encode_frames = [], answerer.network.get_video_features
    monkeypatch.setattr(
        answerer.network, "get_video_features", lambda *a, **o: towers.append(1) or encode_frames(*a, **o)
    )
    found = collect(answerer, [Request(clips[0], clips[0], f"Question {number}?") for number in range(3)])
    assert len(found) == 3 and len(towers) == 1


def test_mistakes_are_found_before_the_weights_are_loaded(checkpoint, monkeypatch):
    monkeypatch.setattr("vidlada_hf.inference.answering.load_network", None)
    for options, problem in (
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"workers": 0}, "`workers` must be at least 1"),
        ({"processor_kwargs": {"num_frames": 0}}, "`num_frames=0` is impossible"),
        ({"block_length": 3}, "`block_length`"),
        ({"cache_strategy": "nars"}, "'nars'"),
        ({"device": "cuda:99"}, "no device 'cuda:99'"),
        ({"device": "gpu"}, "no device 'gpu'"),
        ({"device": "meta"}, "no device 'meta'"),
        ({"max_new_tokens": 16384}, "leaves no room for a prompt: the model has 16384 positions"),
    ):
        with pytest.raises(ValueError, match=problem):
            VideoAnswerer(checkpoint, **SETTINGS | options)


def test_rays_actors_take_tables(checkpoint, clips):
    pyarrow = pytest.importorskip("pyarrow")
    answerer = pickle.loads(pickle.dumps(RayVideoAnswerer))(checkpoint, {"num_frames": 2}, **SETTINGS)
    table = pyarrow.table({"id": ["a", "b"], "video": [clips[0], "gone.mp4"], "question": [QUESTION] * 2})
    answered = answerer(table)
    assert answered.column_names == ["id", "video", "question", "answer", "error"]
    assert answered.schema.field("answer").type == answered.schema.field("error").type == pyarrow.string()
    first, second = answered.to_pylist()
    assert first["answer"] and first["error"] is None and second["answer"] is None and "gone.mp4" in second["error"]
