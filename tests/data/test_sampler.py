import itertools

import numpy as np
import pytest

from lit_compress.data.sampler import BucketSampler, EverySampler, by_length, by_length_shuffled

LENGTHS = np.random.default_rng(0).integers(3, 60, size=107)


def batches(sampler, size):
    rows = list(sampler)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


@pytest.mark.parametrize("pool", [0, 1, 3, 50])
def test_an_epoch_holds_every_row_once(pool):
    sampler = BucketSampler(LENGTHS, batch_size=8, pool=pool)
    assert sorted(sampler) == list(range(107))
    assert len(sampler) == 107


def test_batches_hold_rows_of_similar_length():
    def padding(sampler):
        return sum(LENGTHS[b].max() * len(b) - LENGTHS[b].sum() for b in batches(sampler, 8)) / LENGTHS.sum()

    assert padding(BucketSampler(LENGTHS, 8, pool=13)) < 0.25 * padding(BucketSampler(LENGTHS, 8, pool=0))


def test_each_pool_is_cut_into_consecutive_lengths():
    # 13 whole batches in pools of 4: within a pool no batch may overlap the lengths of another one.
    found = sorted(
        (min(LENGTHS[b]), max(LENGTHS[b])) for b in batches(BucketSampler(LENGTHS, 8, pool=13), 8)[:13]
    )
    assert all(high <= low for (_, high), (low, _) in itertools.pairwise(found))


def test_the_incomplete_batch_comes_last_and_is_drawn_at_random():
    sampler = BucketSampler(LENGTHS, batch_size=8, pool=50)
    means = []
    for epoch in range(200):
        sampler.set_epoch(epoch)
        last = batches(sampler, 8)[-1]
        assert len(last) == 3
        means.append(LENGTHS[last].mean())
    error = LENGTHS.std() / np.sqrt(3 * 200)
    assert abs(np.mean(means) - LENGTHS.mean()) < 4 * error


def test_order_depends_on_seed_and_epoch_only():
    first, again = (BucketSampler(LENGTHS, 8, pool=3, seed=5) for _ in range(2))
    other = BucketSampler(LENGTHS, 8, pool=3, seed=6)
    assert list(first) == list(again) != list(other)
    epoch0 = list(first)
    first.set_epoch(1)
    assert list(first) != epoch0
    first.set_epoch(0)
    assert list(first) == epoch0


@pytest.mark.parametrize("pool", [0, 3])
@pytest.mark.parametrize("world", [2, 3])
def test_processes_together_see_the_batches_of_one_process(world, pool):
    one = batches(BucketSampler(LENGTHS, 4 * world, pool), 4 * world)
    ranks = [BucketSampler(LENGTHS, 4, pool, num_replicas=world, rank=rank) for rank in range(world)]
    assert len({len(rank) for rank in ranks}) == 1
    shares = [batches(rank, 4) for rank in ranks]
    for number, batch in enumerate(one[:-1]):
        assert sorted(row for share in shares for row in share[number]) == sorted(batch)
    together = [row for share in shares for row in share[-1]]
    repeats = -len(one[-1]) % world
    assert set(one[-1]) <= set(together)
    assert len(together) == len(one[-1]) + repeats


def test_padding_wraps_around_even_with_fewer_rows_than_processes():
    ranks = [list(BucketSampler(np.array([5]), 4, num_replicas=3, rank=rank)) for rank in range(3)]
    assert ranks == [[0], [0], [0]]


def test_start_skips_rows_once():
    sampler = BucketSampler(LENGTHS, 8)
    whole = list(sampler)
    sampler.start = 16
    assert list(sampler) == whole[16:]
    assert list(sampler) == whole


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_row_is_evaluated_exactly_once_by_all_processes_together(world):
    order = by_length_shuffled(LENGTHS, 8)
    ranks = [EverySampler(order, 8, num_replicas=world, rank=rank) for rank in range(world)]
    assert sorted(row for rank in ranks for row in rank) == list(range(107))
    assert [len(list(rank)) for rank in ranks] == [len(rank) for rank in ranks]


def test_evaluation_orders():
    assert (np.diff(LENGTHS[by_length(LENGTHS)]) >= 0).all()
    order = by_length_shuffled(LENGTHS, 8)
    starts = LENGTHS[order[:104].reshape(-1, 8)].mean(axis=1)
    spans = np.ptp(LENGTHS[order[:104].reshape(-1, 8)], axis=1)
    assert spans.mean() < 8
    assert (np.diff(starts) < 0).any()
