from __future__ import annotations

import io
import json
import logging
import tarfile

import pytest

from kvg.shards.reader import ShardFolder, Tally, read_shard
from kvg.shards.schema import encode_record


def write_tar(path, records):
    with tarfile.open(path, "w") as tar:
        for key, members in records:
            for extension, content in members.items():
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def test_order_is_kept(write_set):
    assert [s.key for s in read_shard(write_set(4) / "shard-000000.tar")] == ["k0000", "k0001", "k0002", "k0003"]


def test_bad_samples_are_counted_named_and_passed_over(tmp_path, make_sample, caplog):
    records = [(f"k{i:04d}", encode_record(make_sample(i))) for i in range(5)]
    records[1][1]["jpg"] = records[1][1]["jpg"][:200]
    record = json.loads(records[3][1]["json"])
    del record["split"]
    records[3][1]["json"] = json.dumps(record).encode()
    write_tar(tmp_path / "s.tar", records)
    tally = Tally()
    with caplog.at_level(logging.WARNING):
        assert [s.key for s in read_shard(tmp_path / "s.tar", tally)] == ["k0000", "k0002", "k0004"]
    assert (tally.num_read, tally.num_bad, tally.num_cut) == (3, 2, 0)
    assert "s.tar sample k0001: image: cannot be decoded" in caplog.text
    assert "s.tar sample k0003: split: is missing" in caplog.text


def test_a_long_list_is_cut_short(tmp_path, make_sample, caplog):
    write_tar(tmp_path / "s.tar", [(f"k{i:04d}", {"json": b"{}"}) for i in range(50)])
    tally = Tally()
    assert list(read_shard(tmp_path / "s.tar", tally)) == []
    assert (tally.num_bad, len(tally.problems)) == (50, 20)
    assert len(caplog.records) == 21
    assert "more follow" in caplog.records[-1].message


@pytest.mark.parametrize("share", [0.25, 0.5, 0.8])
def test_tar_cut_off_anywhere(write_set, share, caplog):
    folder = write_set(8, per_shard=8)
    path = folder / "shard-000000.tar"
    whole = path.read_bytes().rstrip(b"\0")  # a tar is padded with zeros, whose loss nobody would notice
    path.write_bytes(whole[: int(len(whole) * share)])
    tally = Tally()
    keys = [s.key for _, s in ShardFolder(folder).parts()[0].read(tally)]
    assert keys == [f"k{i:04d}" for i in range(len(keys))]
    assert 8 * share - 2 <= len(keys) < 8
    assert tally.num_cut == 1
    assert "shard-000000.tar" in caplog.text


def test_cut_between_two_samples_is_noticed_by_the_count(tmp_path, write_set, make_sample):
    folder = write_set(3, per_shard=3)
    write_tar(folder / "shard-000000.tar", [("k0000", encode_record(make_sample(0)))])
    tally = Tally()
    assert len(list(ShardFolder(folder).parts()[0].read(tally))) == 1
    assert (tally.num_cut, tally.num_bad) == (1, 0)
    assert "holds 1 of 3 samples" in tally.problems[0]


def test_whole_samples_before_the_cut_are_kept(write_set):
    folder = write_set(2, per_shard=2)
    path = folder / "shard-000000.tar"
    with tarfile.open(path) as tar:
        second = tar.getmember("k0001.json").offset
    path.write_bytes(path.read_bytes()[: second + 100])  # inside the header of the second sample
    tally = Tally()
    assert [s.key for s in read_shard(path, tally)] == ["k0000"]
    assert (tally.num_cut, tally.num_bad) == (1, 0)
    with tarfile.open(write_set(2, per_shard=2, name="other") / "shard-000000.tar") as tar:
        image, record = (tar.getmember(f"k0001.{kind}") for kind in ("jpg", "json"))
    for end in (record.offset + 40, record.offset, image.offset_data + 9):  # between image and record, and in the image
        path.write_bytes((path.parent.parent / "other/shard-000000.tar").read_bytes()[:end])
        tally = Tally()
        assert [s.key for s in read_shard(path, tally)] == ["k0000"]
        assert (tally.num_cut, tally.num_bad) == (1, 0)


def test_not_a_tar_at_all(tmp_path):
    (tmp_path / "s.tar").write_bytes(b"nonsense" * 200)
    tally = Tally()
    assert list(read_shard(tmp_path / "s.tar", tally)) == []
    assert tally.num_cut == 1
