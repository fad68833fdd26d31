import torch

from vidlada_hf.training.data.samplers import SeededLengthGroupedSampler


def test_batches_of_similar_lengths_follow_from_seed_and_epoch():
    lengths = torch.randint(1, 1000, (400,)).tolist()
    sampler = SeededLengthGroupedSampler(8, lengths, seed=3)
    order = list(sampler)
    assert sorted(order) == list(range(400)) and order == list(SeededLengthGroupedSampler(8, lengths, seed=3))
    spread = [max(b) - min(b) for b in ([lengths[i] for i in order[k : k + 8]] for k in range(0, 400, 8))]
    assert sum(spread) / len(spread) < 200  # of shuffled ones some 770
    sampler.set_epoch(1)
    assert list(sampler) != order
