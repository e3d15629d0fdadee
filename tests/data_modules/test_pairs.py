"""Pairs stay together: in order, in batches, over processes and after a sample that cannot be used."""

from __future__ import annotations

import itertools

import pytest

from data_modules import GRPODataModule
from data_modules.loader import StreamLoader
from data_modules.recipe import Recipe
from kvg.errors import ConfigError, DataError
from kvg.shards.dataset import ShardDataset
from kvg.shards.reader import ShardFolder
from kvg.shards.writer import ShardWriter
from tests.data_modules.conftest import build


@pytest.fixture
def paired_set(tmp_path):
    def write(num: int, per_shard: int = 8, **changes) -> str:
        with ShardWriter(tmp_path / "pairs", per_shard) as writer:
            for number in range(num):
                own = changes.get(f"of_{number}", {})
                writer.write(build(number, **{"pair": f"k{number - number % 2:04d}", **own}))
        return str(tmp_path / "pairs")

    return write


def loader(folder, backbone, batch_size=4):
    dataset = ShardDataset(ShardFolder(folder), seed=1, shuffle_buffer=6, pairs=True)
    return StreamLoader(dataset, backbone.processor, Recipe(batch_size, pairs=True), endless=True)


def test_both_of_a_pair_are_neighbours_in_every_batch(paired_set, backbone):
    own, seen = loader(paired_set(24), backbone), []
    for _ in range(2):
        for batch in own:
            assert batch.prompts_per_group == 2
            pairs = [sample.pair for sample in batch.samples]
            assert pairs[::2] == pairs[1::2]
            assert len(set(pairs)) == 2
            seen.append(pairs[::2])
    assert sorted(itertools.chain(*seen[:6])) == [f"k{number:04d}" for number in range(0, 24, 2)]
    assert seen[:6] != seen[6:]  # the pairs of an epoch, in another order in the next


def test_processes_share_whole_pairs(paired_set):
    folder = ShardFolder(paired_set(12, per_shard=12))
    slots = [[s.key for s in ShardDataset(folder, 1, 6, pairs=True).stream(0, slot, 4)] for slot in range(4)]
    assert sorted(itertools.chain(*slots)) == [f"k{number:04d}" for number in range(12)]
    for keys in slots:
        numbers = sorted(int(key[1:]) for key in keys)
        assert [n - n % 2 for n in numbers[::2]] == [n - n % 2 for n in numbers[1::2]]


def test_a_sample_whose_other_half_cannot_be_used_is_left_out(paired_set, backbone):
    own = loader(paired_set(12, of_5={"rationale": ""}), backbone)
    own.recipe = Recipe(4, target="rationale", pairs=True)
    batches = [[sample.key for sample in batch.samples] for batch in own]
    used = set(itertools.chain(*batches))
    assert not {"k0004", "k0005"} & used
    assert all(keys[0][:4] == keys[1][:4] and int(keys[0][4:]) // 2 == int(keys[1][4:]) // 2 for keys in batches)
    assert own.samples.tally.num_bad >= 2
    assert any("its pair is not beside it" in problem for problem in own.samples.tally.problems)


def test_a_position_in_the_middle_of_an_epoch_is_taken_up(paired_set, backbone):
    folder = paired_set(24)
    whole = [[s.key for s in batch.samples] for batch in loader(folder, backbone)]
    first, second = loader(folder, backbone), loader(folder, backbone)
    for batch, _ in zip(first, range(2), strict=False):
        assert len(batch) == 4
        state = first.state_dict()
    second.load_state_dict(state)
    assert [[s.key for s in batch.samples] for batch in second] == whole[2:]


def test_a_set_without_pairs_and_an_odd_batch_are_refused(paired_set, write_set, backbone):
    with pytest.raises(ConfigError, match="cuts a pair"):
        GRPODataModule(paired_set(4), batch_size=3, pairs=True)
    with pytest.raises(DataError, match=r"compositor\.paired"):
        GRPODataModule(write_set(4), batch_size=2, pairs=True).setup("fit")
    with pytest.raises(DataError, match="its pair is not beside it"):
        next(iter(loader(write_set(10, name="plain"), backbone)))
