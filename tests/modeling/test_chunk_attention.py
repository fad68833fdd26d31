import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidlada_hf.modeling import chunk_attention_vidlada
from vidlada_hf.modeling.chunk_attention_vidlada import (
    VideoTokens,
    attend_by_frames,
    batch_frames,
    choose_anchors,
    evenly_spaced,
    proxy_attention_scores,
)

from .layouts import text_model

CPU = torch.device("cpu")


@st.composite
def videos(draw: st.DrawFn) -> tuple[VideoTokens, list[torch.Tensor]]:
    """Rows of an example in any order in the store, frames of any sizes, and anchors."""
    sizes = draw(st.lists(st.integers(2, 4), min_size=1, max_size=6))
    others, count = draw(st.integers(0, 3)), draw(st.integers(0, 2))
    order = torch.randperm(sum(sizes) + others, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    *frames, rest = order.split([*sizes, others])
    return VideoTokens(tuple(frames), rest), [frame[:count] for frame in frames]


def dense_mask(video: VideoTokens, anchors: list[torch.Tensor], neighborhood: int, total: int) -> torch.Tensor:
    """(tokens, tokens), bool, token by token as the paper says it."""
    mask = torch.zeros(total, total, dtype=torch.bool)
    for n, queries in enumerate(video.frames):
        for query in queries.tolist():
            for m, keys in enumerate(video.frames):
                seen = keys if abs(m - n) <= neighborhood else anchors[m]
                mask[query, seen] = True
            mask[query, video.others] = True
    return mask


@settings(max_examples=60, deadline=None)
@given(case=videos(), neighborhood=st.integers(0, 3), keys_at_once=st.sampled_from([1, 20, 8192]))
def test_it_is_dense_attention_with_the_same_mask(case, neighborhood, keys_at_once):
    (video, anchors), attention = case, text_model().layers[1].self_attn
    total = sum(map(len, video.frames)) + len(video.others)
    query, key, value = torch.randn(3, 1, 4, total, 8).unbind()
    dense = attention.attend(query, key, value, dense_mask(video, anchors, neighborhood, total)[None, None])[0]

    visual = video.visual
    places = torch.full((total,), -1)
    places[visual] = torch.arange(len(visual))
    before, chunk_attention_vidlada.KEYS_AT_ONCE = chunk_attention_vidlada.KEYS_AT_ONCE, keys_at_once
    batches = batch_frames([video], [anchors], neighborhood, CPU)
    chunk_attention_vidlada.KEYS_AT_ONCE = before
    keys, values = (x[0].transpose(0, 1).contiguous() for x in (key, value))
    ours = attend_by_frames(attention, query[:, :, visual], places, keys, values, batches)
    torch.testing.assert_close(ours, dense[:, visual], atol=1e-5, rtol=1e-5)


def test_no_key_is_counted_twice_and_edges_see_less():
    video = VideoTokens(tuple(torch.arange(12).view(4, 3)), torch.tensor([12, 13]))
    anchors = [frame[1:2] for frame in video.frames]
    assert video.keys_of(0, 1, anchors).tolist() == [0, 1, 2, 3, 4, 5, 7, 10, 12, 13]
    assert video.keys_of(2, 1, anchors).tolist() == [3, 4, 5, 6, 7, 8, 9, 10, 11, 1, 12, 13]
    assert video.keys_of(3, 0, anchors).tolist() == [9, 10, 11, 1, 4, 7, 12, 13]
    for frame in range(4):
        assert sorted(video.keys_of(frame, 3, anchors).tolist()) == list(range(14))


def test_frames_that_see_as_many_keys_go_together():
    """Of 32 frames only the first and the last see fewer: two lengths, whatever the number of frames."""
    frames, video = 32, VideoTokens(tuple(torch.arange(64).view(32, 2)), torch.tensor([64]))
    anchors = [frame[:1] for frame in video.frames]
    batches = batch_frames([video], [anchors], 1, CPU)
    assert sorted(len(batch.queries) for batch in batches) == [2, frames - 2]
    assert sorted(len(b.queries) for b in batch_frames([video, video], [anchors, anchors], 1, CPU)) == [4, 60]


def test_anchors_are_the_tokens_that_far_queries_look_at():
    """Key 4 (frame 1) is what everyone looks at, key 5 is what only its own frame and the next one look at."""
    video = VideoTokens(tuple(torch.arange(12).view(4, 3)), torch.tensor([12]))
    frames = video.frame_of_tokens()
    assert frames.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    keys = torch.zeros(13, 1, 8)
    keys[4, 0, 0], keys[5, 0, 1] = 4.0, 9.0
    query = torch.zeros(2, 12, 8)
    query[:, :, 0] = 1
    query[:, 3:9, 1] = 1
    scores = proxy_attention_scores(query, frames, keys, slice(12), frames, 1, 1.0)
    assert [a.tolist() for a in choose_anchors(video, scores, 1)][1] == [4]
    weights = (query @ keys.transpose(0, 1).transpose(1, 2)).softmax(-1).mean(0)
    assert torch.allclose(scores[4], weights[9:12, 4].sum())  # frame 3 alone is farther than 1 from frame 1
    assert torch.allclose(scores[0], weights[6:12, 0].sum())


@given(count=st.integers(0, 50), wanted=st.integers(1, 60))
def test_spread_is_even_and_within(count, wanted):
    places = evenly_spaced(count, wanted).tolist()
    assert len(places) == min(count, wanted) and all(0 <= p < count for p in places)
    gaps = {b - a for a, b in zip(places, places[1:], strict=False)}
    assert not gaps or (min(gaps) > 0 and max(gaps) - min(gaps) <= 1)
