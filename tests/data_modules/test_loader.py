from __future__ import annotations

import itertools
import pickle
from pathlib import Path

import pytest
import torch.distributed as dist
import torch.multiprocessing as mp

from data_modules.loader import StreamLoader
from data_modules.recipe import Recipe
from kvg.errors import DataError
from kvg.shards.dataset import ShardDataset
from kvg.shards.reader import ShardFolder

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create .* worker processes")  # on a single core


def keys(batches):
    return [[s.key for s in batch.samples] for batch in batches]


def make(folder, backbone, num_workers=0, batch_size=3, **settings):
    endless = settings.pop("endless", True)
    dataset = ShardDataset(ShardFolder(folder), seed=5, shuffle_buffer=6 if endless else 0)
    recipe = Recipe(batch_size, **settings)
    return StreamLoader(dataset, backbone.processor, recipe, num_workers, endless=endless)


def spoil(folder, keys):
    """Damages images in place, so that the shard stays readable."""
    for path in sorted(Path(folder).glob("*.tar")):
        data = bytearray(path.read_bytes())
        for key in keys:
            start = data.find(f"{key}.jpg".encode())
            if start >= 0:
                data[start + 512 : start + 520] = bytes(8)  # the first bytes of the picture, after the tar header
        path.write_bytes(bytes(data))


def test_full_batches_and_a_new_order_each_epoch(write_set, backbone):
    loader = make(write_set(20), backbone)
    assert len(loader) == 6
    first, second = keys(loader), keys(loader)
    assert [len(b) for b in first] == [3] * 6
    assert len(set(itertools.chain(*first))) == 18
    assert first != second


def test_finite_loader_gives_each_sample_once_in_order(write_set, backbone):
    loader = make(write_set(20), backbone, endless=False)
    assert len(loader) == 7
    assert list(itertools.chain(*keys(loader))) == [f"k{i:04d}" for i in range(20)]


@pytest.mark.parametrize("num_workers", [1, 3])
def test_workers_give_each_sample_once(write_set, backbone, num_workers):
    loader = make(write_set(20), backbone, num_workers, endless=False)
    batches = keys(loader)
    assert len(batches) == len(loader)
    assert sorted(itertools.chain(*batches)) == [f"k{i:04d}" for i in range(20)]


@pytest.mark.parametrize(("num_workers", "stop"), [(0, 1), (0, 4), (2, 1), (2, 3), (2, 4), (3, 5)])
@pytest.mark.parametrize("bad", [[], ["k0003", "k0011", "k0012", "k0013"]])
def test_goes_on_with_the_very_next_sample(write_set, backbone, num_workers, stop, bad):
    folder = write_set(32, per_shard=4)
    spoil(folder, bad)
    whole = make(folder, backbone, num_workers)
    list(whole)
    expected, next_epoch = keys(whole), keys(whole)
    stopped = make(folder, backbone, num_workers)
    list(stopped)
    head = keys(itertools.islice(stopped, stop))
    state = pickle.loads(pickle.dumps(stopped.state_dict()))
    resumed = make(folder, backbone, num_workers)
    resumed.load_state_dict(state)
    assert head + keys(resumed) == expected
    assert keys(resumed) == next_epoch
    assert not set(bad) & set(itertools.chain(*expected))


def test_saved_at_the_end_of_an_epoch_the_next_one_follows(write_set, backbone):
    folder = write_set(12)
    whole = make(folder, backbone)
    list(whole)
    resumed = make(folder, backbone)
    resumed.load_state_dict(whole.state_dict())
    assert keys(resumed) == keys(whole)


def test_saved_again_right_after_loading(write_set, backbone):
    folder = write_set(12)
    stopped = make(folder, backbone)
    list(itertools.islice(stopped, 2))
    resumed = make(folder, backbone)
    resumed.load_state_dict(stopped.state_dict())
    assert resumed.state_dict() == stopped.state_dict()


@pytest.mark.parametrize(("num_workers", "stop"), [(0, 1), (0, 4), (2, 3), (3, 5)])
def test_the_following_batch_is_not_counted(write_set, backbone, num_workers, stop):
    folder = write_set(20)
    plain = make(folder, backbone, num_workers)
    expected, next_epoch = keys(plain), keys(plain)
    ahead = make(folder, backbone, num_workers)
    ahead.look_ahead = True
    batches = list(itertools.islice(ahead, stop))
    assert keys(batches) == expected[:stop]
    assert keys(batch.following for batch in batches) == expected[1 : stop + 1]
    assert all(batch.following.following is None for batch in batches)
    counted = make(folder, backbone, num_workers)
    list(itertools.islice(counted, stop))
    assert ahead.state_dict() == counted.state_dict()
    resumed = make(folder, backbone, num_workers)
    resumed.look_ahead = True
    resumed.load_state_dict(ahead.state_dict())
    rest = list(resumed)
    assert keys(rest) == expected[stop:]
    assert rest[-1].following is None
    assert keys(resumed) == next_epoch


def test_other_batch_size_is_said(write_set, backbone, caplog):
    folder = write_set(24)
    stopped = make(folder, backbone, batch_size=3)
    list(itertools.islice(stopped, 2))
    resumed = make(folder, backbone, batch_size=2)
    resumed.load_state_dict(stopped.state_dict())
    assert "some samples of this epoch may be read twice" in caplog.text
    assert len(keys(resumed)) == 10


def test_bad_samples_are_counted_and_the_epoch_keeps_its_length(write_set, backbone, caplog):
    folder = write_set(20)
    spoil(folder, ["k0002", "k0007"])
    loader = make(folder, backbone)
    batches = keys(loader)
    assert [len(b) for b in batches] == [3] * 6
    assert "k0002: image" in caplog.text
    loader = make(folder, backbone, 2, endless=False)
    assert len(list(itertools.chain(*keys(loader)))) == 18


def test_long_samples_are_passed_over_not_cut(write_set, backbone, caplog):
    folder = write_set(6)
    length = len("think: Merlin?" + "Look: 1 <box:0>; 2 <box:1>.")
    assert len(keys(make(folder, backbone, target="rationale", max_tokens=length))) == 2
    with pytest.raises(DataError, match=f"tokens: {length} exceed max_tokens={length - 1}"):
        list(make(folder, backbone, target="rationale", max_tokens=length - 1))


def _in_a_process(rank, world, folder, port, processor, queue):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    for endless in (True, False):
        dataset = ShardDataset(ShardFolder(folder), seed=5, shuffle_buffer=6 if endless else 0)
        loader = StreamLoader(dataset, processor, Recipe(3), endless=endless)
        rows = [([s.key for s in batch.samples], batch.padding) for batch in loader]
        queue.put((rank, endless, len(loader), rows))
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_share_the_samples_and_stay_in_step(write_set, backbone, find_port):
    folder = write_set(19, per_shard=7)  # shards of 7, 7 and 5: one process has far more than the other
    context = mp.get_context("fork")
    queue = context.SimpleQueue()
    arguments = (2, folder, find_port(), backbone.processor, queue)
    workers = [context.Process(target=_in_a_process, args=(rank, *arguments)) for rank in range(2)]
    for worker in workers:
        worker.start()
    results = {(rank, endless): (length, rows) for rank, endless, length, rows in (queue.get() for _ in range(4))}
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    for rank in range(2):
        length, rows = results[rank, True]
        assert length == len(rows) == 3
        assert all(len(row) == 3 for row, _ in rows)
        assert results[rank, False][0] == len(results[rank, False][1]) == 4
    shares = [set(itertools.chain(*(row for row, _ in results[rank, True][1]))) for rank in range(2)]
    assert not shares[0] & shares[1]
    whole = [key for rank in range(2) for row, padding in results[rank, False][1] if not padding for key in row]
    assert sorted(whole) == [f"k{i:04d}" for i in range(19)]


def test_a_process_without_a_last_batch_repeats_one_and_says_so(write_set, backbone, monkeypatch):
    folder = write_set(7)
    monkeypatch.setattr("data_modules.loader.rank_and_world", lambda: (1, 2))
    rows = list(make(folder, backbone, batch_size=3, endless=False))
    # Rank 0 has samples 0 2 4 6, in two batches; rank 1 has 1 3 5, in one.
    assert keys(rows) == [["k0001", "k0003", "k0005"]] * 2
    assert [batch.padding for batch in rows] == [False, True]
