import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidlada_hf.modeling import chunk_attention_vidlada
from vidlada_hf.modeling.chunk_attention_vidlada import (
    AnchorSearch,
    GatheredFrames,
    VideoTokens,
    WindowedFrames,
    attention_by_frames,
    evenly_spaced,
    proxy_attention_scores,
)

from .layouts import text_model

CPU = torch.device("cpu")


@st.composite
def videos(draw: st.DrawFn) -> tuple[VideoTokens, torch.Tensor]:
    """Tokens of an example in any order in the store, frames of any sizes, and anchors."""
    sizes = draw(st.lists(st.integers(2, 4), min_size=1, max_size=6))
    others, count = draw(st.integers(0, 3)), draw(st.integers(0, 2))
    order = torch.randperm(sum(sizes) + others, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    *frames, rest = order.split([*sizes, others])
    return VideoTokens(tuple(frames), rest), torch.stack([frame[:count] for frame in frames])


def regular_video(frames: int, size: int, before: int, behind: int) -> VideoTokens:
    """Frames one behind the other, with text on both sides."""
    begin, end = before, before + frames * size
    others = torch.cat([torch.arange(before), torch.arange(end, end + behind)])
    return VideoTokens(tuple(torch.arange(begin, end).view(frames, size)), others)


def dense_mask(video: VideoTokens, anchors: torch.Tensor, neighborhood: int, total: int) -> torch.Tensor:
    """(tokens, tokens), bool, token by token as the paper says it."""
    mask = torch.zeros(total, total, dtype=torch.bool)
    for n, queries in enumerate(video.frames):
        for query in queries.tolist():
            for m, keys in enumerate(video.frames):
                seen = keys if abs(m - n) <= neighborhood else anchors[m]
                mask[query, seen] = True
            mask[query, video.others] = True
    return mask


def assert_is_dense_attention(video: VideoTokens, anchors: torch.Tensor, neighborhood: int, by_frames) -> None:
    """Attention by frames gives what attention to all tokens gives under the paper's mask."""
    attention, total = text_model().layers[1].self_attn, sum(video.sizes) + len(video.others)
    query, key, value = torch.randn(3, 1, 4, total, 8).unbind()
    dense = attention.attend(query, key, value, dense_mask(video, anchors, neighborhood, total)[None, None])[0]
    visual = query[0][:, video.visual].transpose(0, 1)
    keys, values = (x[0].transpose(0, 1).contiguous() for x in (key, value))
    ours = by_frames.attend(attention, visual, keys, values, anchors)
    torch.testing.assert_close(ours, dense[0, video.visual], atol=1e-5, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(case=videos(), neighborhood=st.integers(0, 3), keys_at_once=st.sampled_from([1, 20, 8192]))
def test_lists_of_keys_are_dense_attention_with_the_same_mask(case, neighborhood, keys_at_once):
    video, anchors = case
    before = chunk_attention_vidlada.KEYS_AT_ONCE
    chunk_attention_vidlada.KEYS_AT_ONCE = {"cpu": keys_at_once}
    by_frames = GatheredFrames(video, neighborhood, CPU, anchors.shape[1])
    chunk_attention_vidlada.KEYS_AT_ONCE = before
    assert_is_dense_attention(video, anchors, neighborhood, by_frames)


@settings(max_examples=80, deadline=None)
@given(
    frames=st.integers(1, 9),
    size=st.integers(1, 4),
    neighborhood=st.integers(0, 3),
    count=st.integers(0, 3),
    before=st.integers(0, 3),
    behind=st.integers(0, 2),
)
def test_windows_are_dense_attention_with_the_same_mask(frames, size, neighborhood, count, before, behind):
    video = regular_video(frames, size, before, behind)
    assert WindowedFrames.fits(video, neighborhood) == (frames > 2 * neighborhood)
    if frames > 2 * neighborhood:
        anchors = torch.stack([frame[torch.randperm(size)[: min(count, size)]] for frame in video.frames])
        assert_is_dense_attention(video, anchors, neighborhood, WindowedFrames(video, neighborhood, CPU))


def test_windows_serve_plain_videos_and_lists_all_else():
    attention, query = text_model().layers[1].self_attn, torch.randn(1, 4, 8)
    plain, ragged = regular_video(5, 3, 2, 2), VideoTokens(tuple(torch.arange(7).split([2, 2, 3])), torch.arange(7, 8))
    apart = VideoTokens((torch.tensor([0, 1]), torch.tensor([3, 4]), torch.tensor([5, 6])), torch.tensor([2]))
    assert isinstance(attention_by_frames(plain, 1, 1, attention, query), WindowedFrames)
    for video in (ragged, apart, regular_video(2, 3, 1, 1)):
        assert isinstance(attention_by_frames(video, 1, 1, attention, query), GatheredFrames)
    assert isinstance(attention_by_frames(plain, 1, 1, attention, query.half()), GatheredFrames)  # not on a CPU


def test_frames_that_see_as_many_keys_go_together():
    """Of 32 frames only the first and the last see fewer: two lengths, whatever the number of frames."""
    frames, video = 32, VideoTokens(tuple(torch.arange(64).view(32, 2)), torch.tensor([64]))
    batches = GatheredFrames(video, 1, CPU, 1).batches
    assert sorted(len(batch.queries) for batch in batches) == [2, frames - 2]


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
    assert AnchorSearch(video, 1, 1, 12, CPU).choose(scores)[1].tolist() == [4]
    weights = (query @ keys.transpose(0, 1).transpose(1, 2)).softmax(-1).mean(0)
    assert torch.allclose(scores[4], weights[9:12, 4].sum())  # frame 3 alone is farther than 1 from frame 1
    assert torch.allclose(scores[0], weights[6:12, 0].sum())


def test_anchors_of_frames_of_any_size_are_their_own_tokens_in_order():
    video = VideoTokens(tuple(torch.tensor([7, 3, 9, 1, 0, 5]).split([2, 3, 1])), torch.tensor([2]))
    scores = torch.tensor([0.1, 0.2, 0.9, 0.3, 0.8, 0.0])
    assert AnchorSearch(video, 0, 1, 6, CPU).choose(scores).tolist() == [[3], [9], [5]]
    pairs = VideoTokens(video.frames[:2], video.others)
    assert AnchorSearch(pairs, 0, 2, 6, CPU).choose(scores[:5]).tolist() == [[7, 3], [9, 0]]


@given(count=st.integers(0, 50), wanted=st.integers(1, 60))
def test_spread_is_even_and_within(count, wanted):
    places = evenly_spaced(count, wanted).tolist()
    assert len(places) == min(count, wanted) and all(0 <= p < count for p in places)
    gaps = {b - a for a, b in zip(places, places[1:], strict=False)}
    assert not gaps or (min(gaps) > 0 and max(gaps) - min(gaps) <= 1)
