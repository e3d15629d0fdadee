"""`kvg-data verify` names everything that is wrong with a set, in any number of processes."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from kvg.cli.kvg_data import main
from kvg.shards.manifest import load_manifest, sha256_of
from kvg.shards.writer import ShardWriter
from kvg.types import SceneObject
from tests.shards.conftest import build


def verify(folder: Path, capsys, *more: str) -> tuple[int, list[str]]:
    capsys.readouterr()
    code = main(["verify", str(folder), *more])
    lines = capsys.readouterr().out.splitlines()
    return code, [line for line in lines if "checking samples" not in line]


def write(folder: Path, samples: list, per_shard: int = 4) -> Path:
    with ShardWriter(folder, per_shard) as writer:
        for sample in samples:
            writer.write(sample)
    return folder


def change_manifest(folder: Path, change) -> None:
    record = json.loads((folder / "manifest.json").read_text())
    change(record)
    (folder / "manifest.json").write_text(json.dumps(record))


@pytest.mark.parametrize("workers", ["1", "3"])
def test_problems_come_in_the_order_of_the_shards(tmp_path, capsys, workers):
    folder = write(tmp_path / "set", [build(n) for n in range(20)])
    assert verify(folder, capsys, "--workers", workers) == (0, [f"{folder}: all right"])
    for number in (1, 3):
        path = folder / f"shard-00000{number}.tar"
        data = bytearray(path.read_bytes())
        at = data.find(b".jpg") + 508
        data[at : at + 8] = bytes(8)
        path.write_bytes(bytes(data))
    code, lines = verify(folder, capsys, "--workers", workers)
    assert code == 1
    assert [line.split(": ")[0].removeprefix(f"{folder}/") for line in lines[:4]] == [
        "shard-000001.tar",
        "shard-000001.tar sample k0004",
        "shard-000003.tar",
        "shard-000003.tar sample k0012",
    ]
    assert lines[4] == f"{folder}: 4 problems"


@pytest.mark.parametrize(
    ("rationale", "fault"),
    [
        ("Look: 1 <box:0>; 2 <box:1>.", None),
        ("a <boxer dog> beside <box:0>", None),
        ("Look: 1 <box:x>", "'<box:x>' is not a placeholder"),
        ("Look: 1 <box: 0> and <box:1>", "'<box: 0>' is not a placeholder"),
        ("Look: 1 <Box:0>", "'<Box:0>' is not a placeholder"),
        ("Look: 1 <|box_start|>(1,2),(3,4)<|box_end|>", "'<|box_start|>' is not a placeholder"),
    ],
)
def test_placeholders(tmp_path, capsys, rationale, fault):
    folder = write(tmp_path / "set", [build(0, rationale=rationale)])
    code, lines = verify(folder, capsys)
    assert code == (1 if fault else 0)
    if fault:
        assert f"sample k0000: rationale: {fault}" in lines[0]


def test_boxes_and_placeholders_of_objects_that_are_not_there(tmp_path, capsys):
    folder = write(tmp_path / "set", [build(n) for n in range(3)])
    path = folder / "shard-000000.tar"
    # As long as before, so that the tar stays whole.
    first, name, rest = path.read_bytes().partition(b"k0001.json")
    first, rest = first.replace(b"[4, 6, 20,", b"[4, 6, 90,"), rest.replace(b"2 <box:1>", b"2 <box:7>", 1)
    path.write_bytes(first + name + rest)
    change_manifest(folder, lambda record: record["shards"][0].update(sha256=sha256_of(path)))
    code, lines = verify(folder, capsys)
    assert code == 1
    assert "k0000: objects[0].box_px: [4.0, 6.0, 90.0, 30.0] does not lie inside the 64x48 image" in lines[0]
    assert "k0001: rationale: <box:7> does not stand for an object" in lines[1]


def test_what_the_manifest_counts(tmp_path, capsys):
    samples = [build(n, licences=("CC0",) if n else ()) for n in range(5)]
    folder = write(tmp_path / "set", samples)
    assert verify(folder, capsys)[0] == 0
    change_manifest(folder, lambda record: record["counts"]["licences"].update({"CC0": 5}))
    code, lines = verify(folder, capsys)
    assert code == 1
    assert "manifest.json: counts.licences: says {'-': 1, 'CC0': 5}, the samples give {'-': 1, 'CC0': 4}" in lines[0]
    change_manifest(folder, lambda record: record["counts"].pop("licences"))  # an older set
    assert verify(folder, capsys)[0] == 0


def test_licences_that_are_no_names(tmp_path, capsys):
    folder = write(tmp_path / "set", [build(0, licences=("CC0", ""))])
    assert "provenance.licences: ['CC0', ''] is no list of names" in verify(folder, capsys)[1][0]


def test_keys_that_occur_twice_and_samples_that_are_too_many(tmp_path, capsys):
    folder, other = write(tmp_path / "set", [build(n) for n in range(4)], 2), write(tmp_path / "b", [build(1)])
    with tarfile.open(folder / "shard-000001.tar", "a") as tar, tarfile.open(other / "shard-000000.tar") as more:
        for member in more:
            tar.addfile(member, more.extractfile(member))
    sums = sha256_of(folder / "shard-000001.tar")
    change_manifest(folder, lambda record: record["shards"][1].update(sha256=sums))
    code, lines = verify(folder, capsys)
    assert code == 1
    assert "shard-000001.tar: num_samples: the manifest says 2, there are 3" in lines[0]
    assert "shard-000001.tar sample k0001: key: occurs twice" in lines[1]
    assert len(lines) == 3


def test_an_object_without_a_name_is_fine(tmp_path, capsys):
    objects = (SceneObject("", (1, 1, 9, 9)), SceneObject("Merlin", (10, 10, 20, 20)))
    folder = write(tmp_path / "set", [build(1, objects=objects)])
    assert load_manifest(folder).counts["num_objects"] == {"2": 1}
    assert verify(folder, capsys)[0] == 0
