"""A set whose files are not those of its manifest is refused; one whose samples are mostly unreadable ends the run."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch

from data_modules.loader import StreamLoader
from data_modules.recipe import Recipe
from kvg.batches import Example
from kvg.cli.kvg import main as kvg
from kvg.cli.kvg_data import main as kvg_data
from kvg.errors import DataError
from kvg.shards.dataset import ShardDataset
from kvg.shards.manifest import load_manifest
from kvg.shards.reader import ShardFolder
from kvg.shards.writer import ShardWriter
from tests.shards.conftest import build

FIRST, SECOND = "shard-000000.tar", "shard-000001.tar"


def cut(folder, other):
    path = folder / SECOND
    path.write_bytes(path.read_bytes()[:5000])


def empty(folder, other):
    (folder / SECOND).write_bytes(b"")


def longer(folder, other):
    path = folder / SECOND
    path.write_bytes(path.read_bytes() + bytes(512))


def missing(folder, other):
    (folder / SECOND).unlink()


def surplus(folder, other):
    shutil.copy(folder / SECOND, folder / "shard-000007.tar")


def of_another_set(folder, other):
    assert (other / SECOND).stat().st_size == (folder / SECOND).stat().st_size
    shutil.copy(other / SECOND, folder / SECOND)


def swapped(folder, other):
    first, second = (folder / name for name in (FIRST, SECOND))
    first.rename(folder / "x")
    second.rename(first)
    (folder / "x").rename(second)


KINDS = [
    (cut, r"shard-000001\.tar: size: has 5000 bytes, the manifest says \d+; copy or make the set again"),
    (empty, r"shard-000001\.tar: size: has 0 bytes, the manifest says"),
    (longer, r"shard-000001\.tar: size: has \d+ bytes, the manifest says"),
    (missing, r"manifest\.json: shard-000001\.tar: is listed but missing"),
    (surplus, r"shard-000007\.tar: shard: is not in the manifest"),
    (of_another_set, r"shard-000001\.tar: key: begins with sample m0005, the manifest says k0005"),
    (swapped, r"shard-000000\.tar: (size: has|key: begins with sample k0005, the manifest says k0000)"),
]


@pytest.fixture
def sets(tmp_path, write_set):
    """A set of two shards, and one with other keys whose files are as long."""
    with ShardWriter(tmp_path / "other", 5) as writer:
        for number in range(10):
            writer.write(build(number, key=f"m{number:04d}"))
    return write_set(10), tmp_path / "other"


@pytest.mark.parametrize(("damage", "message"), KINDS, ids=lambda value: getattr(value, "__name__", ""))
def test_files_that_are_not_those_of_the_manifest(sets, capsys, damage, message):
    folder, other = sets
    damage(folder, other)
    with pytest.raises(DataError, match=message):
        ShardFolder(folder).check_files()
    assert kvg_data(["verify", str(folder)]) == 1
    output = capsys.readouterr().out
    assert re.search(message, output), output
    assert "Traceback" not in output


@pytest.mark.parametrize("option", ["--data.train", "--data.val", "--data.test"])
def test_every_set_is_looked_at_before_a_model_is_loaded(sets, tmp_path, capsys, option):
    folder, other = sets
    whole = other
    cut(folder, other)
    command = "test" if option == "--data.test" else "fit"
    args = [command, "-c", "configs/stage/cot_sft.yaml", "-c", "configs/backbone/tiny.yaml"]
    args += ["-c", "configs/data/lab_test.yaml"] if command == "test" else [f"--data.train={whole}"]
    args += ["--model.backbone.checkpoint=/nowhere/model", f"--trainer.default_root_dir={tmp_path / 'run'}"]
    assert kvg([*args, "--trainer.accelerator=cpu", f"{option}={folder}"]) == 2
    assert "shard-000001.tar: size: has 5000 bytes" in capsys.readouterr().err


def test_manifests_without_sizes_and_keys_still_load(write_set):
    folder = write_set(10)
    path = folder / "manifest.json"
    record = json.loads(path.read_text())
    for shard in record["shards"]:
        del shard["num_bytes"], shard["first_key"]
    path.write_text(json.dumps(record))
    assert load_manifest(folder).num_samples == 10
    assert kvg_data(["verify", str(folder)]) == 0
    (folder / SECOND).write_bytes((folder / SECOND).read_bytes()[:5000])
    stream = ShardDataset(ShardFolder(folder), shuffle_buffer=0).stream(0)
    assert len(list(stream)) == 6  # those of the first shard, and one before the cut


def spoil(folder, keys):
    """Makes records of the same length that cannot be read; the files stay as long as they are."""
    for path in folder.glob("*.tar"):
        data = path.read_bytes()
        for key in keys:
            data = data.replace(f'"key": "{key}"'.encode(), f'"kay": "{key}"'.encode())
        path.write_bytes(data)


@pytest.mark.parametrize(("num_bad", "is_refused"), [(4, False), (5, False), (6, True), (10, True)])
@pytest.mark.parametrize("slots", [1, 3])
def test_a_set_that_is_mostly_unreadable_ends_the_run(write_set, num_bad, is_refused, slots):
    folder = write_set(10, per_shard=5)
    keys = [f"k{number:04d}" for number in (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)]
    spoil(folder, keys[:num_bad])
    dataset = ShardDataset(ShardFolder(folder), shuffle_buffer=4)

    def read() -> list[str]:
        return [sample.key for slot in range(slots) for sample in dataset.stream(0, slot, slots)]

    if is_refused:
        with pytest.raises(
            DataError, match=r"set: samples: (only \d+ of 10|none) can be read \(.*copy or make the set"
        ):
            read()
    else:
        assert sorted(read()) == sorted(keys[num_bad:])


def test_a_large_set_is_judged_before_its_end(write_set):
    folder = write_set(200, per_shard=20)
    spoil(folder, [f"k{number:04d}" for number in range(200) if number % 20])
    stream = ShardDataset(ShardFolder(folder), shuffle_buffer=0).stream(0)
    assert [next(stream).key for _ in range(4)] == ["k0000", "k0020", "k0040", "k0060"]
    with pytest.raises(DataError, match=r"only 4 of 80 can be read"):
        next(stream)


class AsItIs:
    """Stands for a backbone's processor: no sample is tokenised here."""

    def encode(self, sample, mode, target):
        return Example(torch.tensor([0]), torch.tensor([-100]))

    def collate(self, examples, samples, pad_left):
        return {"keys": [sample.key for sample in samples]}


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("endless", [True, False])
def test_the_error_reaches_the_user_as_it_is(write_set, num_workers, endless):
    folder = write_set(10)
    spoil(folder, [f"k{number:04d}" for number in range(7)])
    dataset = ShardDataset(ShardFolder(folder), shuffle_buffer=5 if endless else 0)
    recipe = Recipe(2, target="answer" if endless else None, pad_left=not endless)
    loader = StreamLoader(dataset, AsItIs(), recipe, num_workers, endless=endless)
    with pytest.raises(DataError, match="only 3 of 10 can be read"):
        list(loader)
