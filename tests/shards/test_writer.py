from __future__ import annotations

import hashlib
import json

import pytest
import webdataset

from kvg.errors import ConfigError, DataError
from kvg.shards.manifest import load_manifest
from kvg.shards.reader import read_shard
from kvg.shards.revision import revision
from kvg.shards.writer import ShardWriter
from kvg.types import SceneObject


def test_manifest_counts_and_checksums(write_set):
    folder = write_set(12, per_shard=5)
    record = json.loads((folder / "manifest.json").read_text())
    assert record["num_samples"] == 12
    assert [s["num_samples"] for s in record["shards"]] == [5, 5, 2]
    assert record["counts"]["category"] == {"bird": 12}
    assert record["counts"]["num_objects"] == {"2": 12}
    assert (record["seed"], record["config"], record["schema_version"]) == (3, {"num": 12}, 1)
    for shard in record["shards"]:
        content = (folder / shard["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == shard["sha256"]
        assert len(content) == shard["num_bytes"]
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", *(f"shard-00000{i}.tar" for i in range(3))]


def test_licences_are_counted_and_the_code_is_named(tmp_path, make_sample):
    licences = (("CC0", "CC-BY", "CC0"), ("CC0",), (), ())
    with ShardWriter(tmp_path / "set", 3) as writer:
        for number, names in enumerate(licences):
            writer.write(make_sample(number, licences=names))
    manifest = load_manifest(tmp_path / "set")
    assert manifest.counts["licences"] == {"-": 2, "CC-BY": 1, "CC0": 2}
    assert manifest.revision == revision()


def test_a_manifest_from_before_licences_and_revisions(write_set):
    path = write_set(4) / "manifest.json"
    record = json.loads(path.read_text())
    del record["revision"], record["counts"]["licences"]
    path.write_text(json.dumps(record))
    manifest = load_manifest(path.parent)
    assert (manifest.num_samples, manifest.revision) == (4, "")


def test_a_long_key(tmp_path, make_sample):
    key = "k" * 300
    with ShardWriter(tmp_path / "set") as writer:
        writer.write(make_sample(0, key=key))
    assert [s.key for s in read_shard(tmp_path / "set/shard-000000.tar")] == [key]
    rows = list(webdataset.WebDataset(str(tmp_path / "set/shard-000000.tar"), shardshuffle=False))
    assert [row["__key__"] for row in rows] == [key]


def test_same_samples_same_bytes(write_set):
    first, second = write_set(7, name="a"), write_set(7, name="b")
    assert (first / "manifest.json").read_bytes() == (second / "manifest.json").read_bytes()


def test_webdataset_reads_them(write_set):
    folder = write_set(4)
    rows = list(webdataset.WebDataset(str(folder / "shard-000000.tar"), shardshuffle=False))
    assert [row["__key__"] for row in rows] == ["k0000", "k0001", "k0002", "k0003"]
    assert json.loads(rows[1]["json"])["entity"] == "Merlin"
    assert rows[1]["jpg"].startswith(b"\xff\xd8")


def test_nothing_half_done_after_an_error(tmp_path, make_sample):
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path / "set", 2) as writer:  # noqa: PT012
        for number in range(3):
            writer.write(make_sample(number))
        raise KeyboardInterrupt
    assert [p.name for p in (tmp_path / "set").iterdir()] == ["shard-000000.tar"]
    assert len(list(read_shard(tmp_path / "set/shard-000000.tar"))) == 2
    with pytest.raises(DataError, match=r"manifest\.json: is missing: these are no shards"):
        load_manifest(tmp_path / "set")


def test_a_finished_set_is_not_overwritten_by_chance(write_set, make_sample):
    folder = write_set(7)
    with pytest.raises(ConfigError, match="already contains a set"):
        ShardWriter(folder)
    with ShardWriter(folder, overwrite=True) as writer:
        writer.write(make_sample(0))
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "shard-000000.tar"]


def test_a_bad_sample_is_refused(tmp_path, make_sample):
    outside = make_sample(0, objects=(SceneObject("A", (0, 0, 99, 9)),), rationale="")
    with ShardWriter(tmp_path / "set") as writer:
        with pytest.raises(DataError, match="box_px"):
            writer.write(outside)
        writer.write(make_sample(1))
        with pytest.raises(DataError, match="'k0001' occurs twice"):
            writer.write(make_sample(1))
    assert load_manifest(tmp_path / "set").num_samples == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "shard-000001.tar").unlink(), "shard-000001.tar: is listed but missing"),
        (lambda f: (f / "manifest.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "manifest.json").write_text("{}"), "schema_version: None must be a whole number"),
    ],
)
def test_damaged_sets(write_set, damage, message):
    folder = write_set(7)
    damage(folder)
    with pytest.raises(DataError, match=message):
        load_manifest(folder)


def test_a_set_of_another_version(write_set):
    path = write_set(2) / "manifest.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 9'))
    with pytest.raises(DataError, match="schema_version: is 9, this program reads 1"):
        load_manifest(path.parent)


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        load_manifest(tmp_path / "no")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shards": None}, "shards: None must be a list"),
        ({"shards": ["a.tar"]}, r"shards\[0\]: 'a.tar' must be an object"),
        ({"shards": [{"file": "../a.tar"}]}, "file: '../a.tar' is not the name of a file"),
        ({"shards": [{"file": "/etc/passwd"}]}, "file: '/etc/passwd' is not the name of a file"),
        ({"shards": [{"file": 5}]}, "file: 5 must be text"),
        ({"shards": [{"file": "a.tar", "num_samples": True}]}, "num_samples: True must be a whole number"),
        ({"shards": [{"file": "a.tar", "num_samples": -1}]}, "num_samples: -1"),
        ({"shards": [{"file": "a.tar", "num_samples": 10**400}]}, "num_samples: 1000"),
        ({"shards": [{"file": "a.tar", "num_samples": 1, "num_bytes": "5"}]}, "num_bytes: '5'"),
        ({"shards": [{"file": "a.tar", "num_samples": 1, "num_bytes": 5}]}, "sha256: is missing"),
        ({"shards": []}, "num_samples: is 0"),
        ({"counts": []}, r"counts: \[\] must be an object"),
        ({"counts": {"split": 5}}, "counts.split: 5 must be an object"),
        ({"counts": {"split": {"seen": "2"}}}, "counts.split: seen: '2' must be"),
        ({"seed": "0"}, "seed: '0' must be a whole number"),
        ({"config": 5}, "config: 5 must be an object"),
        ({"revision": 5}, "revision: 5 must be text"),
        ({"schema_version": "1"}, "schema_version: '1' must be a whole number"),
    ],
)
def test_mistyped_manifests_are_named_by_field(write_set, change, message):
    path = write_set(2) / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError, match=message) as caught:
        load_manifest(path.parent)
    assert caught.value.where.startswith(str(path))
