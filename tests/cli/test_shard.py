"""`kvg-data shard` as a user runs it: nothing is lost, everything is mixed, and kills cost nothing."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from kvg.cli.kvg_data import main
from kvg.errors import DataError
from kvg.formats.stores import open_store
from kvg.shards.manifest import load_manifest
from kvg.shards.mixing import ScanIndex, merge_scans
from kvg.shards.writer import ShardWriter
from tests.cli.conftest import outputs
from tests.shards.conftest import build


def write(folder: Path, numbers: range, per_shard: int = 10, **changes) -> Path:
    with ShardWriter(folder, per_shard, seed=7, config={"made": folder.name}) as writer:
        for number in numbers:
            writer.write(build(number, **changes))
    return folder


def samples(path: Path) -> list:
    return [sample for part in open_store(path).parts() for _, sample in part.read()]


def shard(sets: list[Path], out: Path, *more: str) -> int:
    return main(["shard", "--in", *map(str, sets), "--out", str(out), *more])


def test_every_sample_of_every_set_is_there_once_and_they_are_mixed(tmp_path, capsys):
    sets = [write(tmp_path / "a", range(0, 43)), write(tmp_path / "b", range(100, 130), 7)]
    assert shard(sets, tmp_path / "out", "--samples-per-shard", "20") == 0
    assert "73 samples in 4 shards" in capsys.readouterr().out
    before, after = samples(sets[0]) + samples(sets[1]), samples(tmp_path / "out")
    assert sorted(after, key=lambda s: s.key) == before  # pictures, boxes, rationales and origins, too
    manifest = load_manifest(tmp_path / "out")
    assert [entry.num_samples for entry in manifest.shards] == [19, 18, 18, 18]
    # Each shard of 18 or 19 would have 10.7 of the first set; a shard of one set alone is one in a million.
    own = [sum(s.key < "k0100" for s in part) for part in (after[:19], after[19:37], after[37:55], after[55:])]
    assert sum(own) == 43
    assert all(4 <= num <= 16 for num in own)
    assert main(["verify", str(tmp_path / "out")]) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "manifest.json",
        *(f"shard-00000{number}.tar" for number in range(4)),
    ]


def test_the_seed_decides_the_order_and_processes_do_not(tmp_path):
    sets = [write(tmp_path / "a", range(30)), write(tmp_path / "b", range(50, 80))]
    ways = {"one": (), "two": ("--workers", "2"), "other": ("--seed", "1"), "kept": ("--no-shuffle",)}
    for name, options in ways.items():
        assert shard(sets, tmp_path / name, "--samples-per-shard", "25", *options) == 0
    assert outputs(tmp_path / "one") == outputs(tmp_path / "two")
    keys = {name: [sample.key for sample in samples(tmp_path / name)] for name in ways}
    assert keys["kept"] == sorted(keys["one"]) == sorted(keys["other"])
    assert keys["kept"] != keys["one"] != keys["other"]


def test_the_manifest_tells_where_everything_came_from(tmp_path):
    several, one = ("CC0", "CC-BY"), ("CC0",)
    sets = [write(tmp_path / "a", range(3), licences=several), write(tmp_path / "b", range(5, 9), licences=one)]
    assert shard([*sets, write(tmp_path / "c", range(20, 22))], tmp_path / "out", "--seed", "5") == 0
    record = json.loads((tmp_path / "out/manifest.json").read_text())
    assert record["seed"] == 5
    assert record["counts"]["licences"] == {"-": 2, "CC-BY": 3, "CC0": 7}
    told = record["config"]["sets"]
    assert [s["num_samples"] for s in told] == [3, 4, 2]
    assert [s["seed"] for s in told] == [7, 7, 7]
    assert [s["config"] for s in told] == [{"made": "a"}, {"made": "b"}, {"made": "c"}]
    assert [s["licences"] for s in told] == [{"CC-BY": 3, "CC0": 3}, {"CC0": 4}, {"-": 2}]
    assert all(s["revision"] == record["revision"] != "" for s in told)


def test_a_key_of_several_sets_gets_the_name_of_its_set_and_no_other_does(tmp_path, capsys):
    sets = [write(tmp_path / "a/birds", range(4)), write(tmp_path / "b/birds", range(2, 6))]
    sets.append(write(tmp_path / "c", range(3, 4)))
    assert shard(sets, tmp_path / "out", "--no-shuffle") == 0
    index = [sample.key for sample in samples(tmp_path / "out")]
    new = ["birds-k0002", "birds-k0003", "birds2-k0002", "birds2-k0003", "k0004", "k0005", "c-k0003"]
    assert index == ["k0000", "k0001", *new]
    assert "5 had a key of several sets" in capsys.readouterr().out


def test_keys_that_cannot_be_made_unique():
    def scan(*keys):
        return {"path": "t", "rows": [[key, 0, 1, 2, 3] for key in keys], "problems": [], "num": 0}

    with pytest.raises(DataError, match="'a-k' exists"):
        merge_scans([scan("k", "a-k"), scan("k")], [0, 1], ["a", "b"])
    with pytest.raises(DataError, match="would be the same for several samples"):
        merge_scans([scan("b-k", "k"), scan("k", "b-k")], [0, 1], ["a-b", "a"])
    index: ScanIndex = merge_scans([scan("k", "m"), scan("k", "n")], [0, 0], ["a"])
    assert (index.num_samples, index.num_bad) == (3, 1)
    assert index.problems == ["t sample k: key: occurs twice in this set; make keys unique"]


def test_bad_samples_are_counted_named_and_passed_over(tmp_path, capsys, caplog):
    sets = [write(tmp_path / "a", range(20)), write(tmp_path / "b", range(50, 60))]
    first, second = tmp_path / "a/shard-000000.tar", tmp_path / "b/shard-000000.tar"
    data = bytearray(first.read_bytes())
    at = data.find(b"k0004.jpg") + 512
    data[at : at + 8] = bytes(8)
    first.write_bytes(bytes(data))
    second.write_bytes(second.read_bytes()[: second.read_bytes().find(b"k0057.jpg") + 900])
    assert shard(sets, tmp_path / "out") == 0
    assert "26 samples in 1 shards" in (said := capsys.readouterr().out)
    assert "2 bad ones skipped" in said
    keys = {sample.key for sample in samples(tmp_path / "out")}
    assert keys == {f"k{n:04d}" for n in (*range(20), *range(50, 57)) if n != 4}
    assert "a/shard-000000.tar sample k0004: image: is neither JPEG nor PNG" in caplog.text
    assert "b/shard-000000.tar after sample k0056: tar: is cut off" in caplog.text


def test_published_files_can_be_among_them(tmp_path):
    write(tmp_path / "a", range(12), category="bird")
    assert main(["convert", "--in", str(tmp_path / "a"), "--out", str(tmp_path / "p.json"), "--to", "sharegpt"]) == 0
    assert main(["convert", "--in", str(tmp_path / "a"), "--out", str(tmp_path / "p.parquet"), "--to", "grpo"]) == 0
    sets = [tmp_path / name for name in ("a", "p.json", "p.parquet")]
    assert shard(sets, tmp_path / "out", "--samples-per-shard", "15") == 0
    index = samples(tmp_path / "out")
    assert Counter(s.image for s in index) == Counter({s.image: 3 for s in samples(tmp_path / "a")})
    assert len({s.key for s in index}) == 36
    assert not list((tmp_path / "out").glob("*.units"))
    assert main(["verify", str(tmp_path / "out")]) == 0


def test_what_the_probe_found_is_stamped_on_the_samples(tmp_path, capsys):
    write(tmp_path / "a", range(6), knowledge="")  # Osprey and Merlin in turns
    (tmp_path / "knowledge.json").write_text(json.dumps({"Osprey": 0.3, "Merlin": 0.29}))
    assert shard([tmp_path / "a"], tmp_path / "out", "--knowledge", str(tmp_path / "knowledge.json")) == 0
    assert {s.entity: s.knowledge for s in samples(tmp_path / "out")} == {"Osprey": "known", "Merlin": "unknown"}
    assert "6 are marked known or unknown" in capsys.readouterr().out
    (tmp_path / "knowledge.json").write_text(json.dumps({"Osprey": 1}))
    again = ("--knowledge", str(tmp_path / "knowledge.json"), "--overwrite")
    assert shard([tmp_path / "a"], tmp_path / "out", *again) == 0
    assert {s.entity: s.knowledge for s in samples(tmp_path / "out")} == {"Osprey": "known", "Merlin": ""}


@pytest.mark.parametrize(
    ("sets", "more", "message"),
    [
        (["a"], ["--samples-per-shard", "0"], "shard.samples_per_shard: 0 must be a whole number from 1 on"),
        (["a", "./a"], [], "in: names a set twice"),
        (["nowhere"], [], "nowhere: folder: does not exist"),
        (["a"], ["--knowledge", "none.json"], "shard.knowledge: none.json: file: cannot be opened"),
        (["bad"], [], "samples: none can be read (bad/shard-000000.tar"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_written(tmp_path, monkeypatch, capsys, sets, more, message):
    monkeypatch.chdir(tmp_path)
    write(Path("a"), range(3))
    shutil.copytree("a", "bad")
    Path("bad/shard-000000.tar").write_bytes(b"x" * 3000)
    assert shard([Path(name) for name in sets], Path("out"), *more) == 2
    assert message in capsys.readouterr().err
    assert not Path("out/manifest.json").exists()


def test_a_set_is_not_lost_by_chance(tmp_path, capsys):
    sets = [write(tmp_path / "a", range(3)), write(tmp_path / "b", range(5, 7))]
    before = outputs(tmp_path / "a")
    assert shard(sets, tmp_path / "a", "--overwrite") == 2
    assert "is one of the input sets" in capsys.readouterr().err
    assert outputs(tmp_path / "a") == before
    assert shard([sets[0]], tmp_path / "b") == 2
    assert "already contains a set" in capsys.readouterr().err


def test_a_set_that_was_mended_is_looked_at_again(tmp_path):
    """An interrupted run remembers what it has seen of the sets, not what has been changed since."""
    write(tmp_path / "a", range(8))
    path = tmp_path / "a/shard-000000.tar"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"target": 1', b'"target": 9'))
    (tmp_path / "out/shard-000000.tar.partial/in the way").mkdir(parents=True)
    assert shard([tmp_path / "a"], tmp_path / "out") == 2
    assert (tmp_path / "out/search.units/000000.json").is_file()
    path.write_bytes(whole)
    shutil.rmtree(tmp_path / "out/shard-000000.tar.partial")
    assert shard([tmp_path / "a"], tmp_path / "out") == 0
    assert len(samples(tmp_path / "out")) == 8
