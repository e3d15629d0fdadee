from __future__ import annotations

import itertools

import pytest

from kvg.errors import DataError
from kvg.shards.dataset import ShardDataset
from kvg.shards.reader import ShardFolder


def keys(samples):
    return [s.key for s in samples]


def dataset(folder, **settings):
    return ShardDataset(ShardFolder(folder), **{"seed": 1, "shuffle_buffer": 4, **settings})


def test_an_epoch_holds_every_sample_once_in_an_order_of_its_own(write_set):
    folder = write_set(23)
    data = dataset(folder)
    first, second = (keys(data.stream(epoch)) for epoch in (0, 1))
    everything = [f"k{i:04d}" for i in range(23)]
    assert sorted(first) == sorted(second) == everything
    assert everything != first != second
    again = dataset(folder)
    assert (keys(again.stream(0)), keys(again.stream(1))) == (first, second)
    assert keys(dataset(folder, seed=2).stream(0)) != first


def test_without_buffer_the_stored_order_is_kept(write_set):
    assert keys(dataset(write_set(12), shuffle_buffer=0).stream(0)) == [f"k{i:04d}" for i in range(12)]


@pytest.mark.parametrize("num_slots", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("shuffle_buffer", [0, 3])
def test_slots_share_all_samples_without_overlap(write_set, num_slots, shuffle_buffer):
    data = dataset(write_set(23), shuffle_buffer=shuffle_buffer)  # 5 shards: fewer than 7 slots, more than 4
    for epoch in (0, 1):
        shares = [keys(data.stream(epoch, slot, num_slots)) for slot in range(num_slots)]
        assert all(shares)
        assert sorted(itertools.chain(*shares)) == [f"k{i:04d}" for i in range(23)]


def test_endless_goes_round_in_another_order(write_set):
    data = dataset(write_set(10))
    twenty = keys(itertools.islice(data.endless(0), 20))
    assert sorted(twenty[:10]) == sorted(twenty[10:])
    assert twenty[:10] != twenty[10:]


def test_nothing_readable_ends_with_the_reason(write_set):
    folder = write_set(4, per_shard=4)
    (folder / "shard-000000.tar").write_bytes(b"")
    with pytest.raises(DataError, match=r"none can be read .*shard-000000\.tar"):
        next(dataset(folder).endless(0))
