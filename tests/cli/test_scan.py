"""`kvg-data scan` as a user runs it: good pictures are listed, bad ones have their reason, kills cost nothing."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kvg.catalogue.entry import read_catalogue
from kvg.cli.kvg_data import main
from tests.catalogue.conftest import bad_ones, drawing, encoded, good_ones
from tests.cli.conftest import outputs

CLASS = "kvg.catalogue.folders.ImageFolder"


def project(folder: Path, root: Path, name: str = "made", **sections) -> Path:
    path = folder / f"{name}.yaml"
    source = {"class_path": CLASS, "init_args": {"root": str(root)}}
    path.write_text(yaml.safe_dump({"out": str(folder / name), "sources": {"photos": source}, **sections}))
    return path


def fill(root: Path, num: int, bad: int = 0, odd: int = 0, size=(96, 64)) -> tuple[list[str], dict[str, str]]:
    """Pictures of eight entities; returns the names of good ones, and the reason of each bad one."""
    good: list[str] = []
    reasons: dict[str, str] = {}
    entities = [root / f"bird/Kind {n}" for n in range(8)]
    for folder in entities:
        folder.mkdir(parents=True, exist_ok=True)

    def put(number: int, name: str, data: bytes) -> str:
        path = entities[number % 8] / name
        path.write_bytes(data)
        return path.relative_to(root).as_posix()

    for number in range(num):
        good.append(put(number, f"{number:05d}.jpg", encoded(drawing(number, size))))
    for number in range(odd):
        # A seed of its own for each file: copies of one picture under two names would be left out.
        name, data = list(good_ones(100_000 + number).items())[number % 7]
        good.append(put(number, name, data))
    for number in range(bad):
        name, (data, reason) = list(bad_ones(200_000 + number).items())[number % 7]
        reasons[put(number, name, data)] = reason
    return sorted(good), reasons


def rejected(folder: Path) -> dict[str, str]:
    return {r["ref"]: r["reason"] for r in map(json.loads, (folder / "rejected.jsonl").read_text().splitlines())}


@pytest.mark.parametrize("num", [60, pytest.param(9_800, marks=pytest.mark.slow)])
def test_every_good_one_is_listed_and_every_bad_one_has_its_reason(tmp_path, num, capsys):
    share = max(14, num // 98)
    good, reasons = fill(tmp_path / "in", num, bad=share, odd=share)
    before = sorted(path for path in tmp_path.rglob("*"))
    assert main(["scan", str(project(tmp_path, tmp_path / "in")), "--workers", "2"]) == 0
    entries = list(read_catalogue(tmp_path / "made/catalogue.jsonl"))
    assert sorted(entry.ref for entry in entries) == good
    found = rejected(tmp_path / "made")
    assert found.keys() == reasons.keys()
    assert all(reasons[ref] in found[ref] for ref in found)
    new = {path for path in tmp_path.rglob("*") if path not in before} - {tmp_path / "made.yaml"}
    assert all(path == tmp_path / "made" or tmp_path / "made" in path.parents for path in new)
    said = capsys.readouterr().out
    assert f"{len(good)} pictures of 8 entities" in said
    assert f"{len(reasons)} left out (image {len(reasons)})" in said
    summary = json.loads((tmp_path / "made/scan.json").read_text())
    assert summary["pictures"] == sum(summary["use"].values()) == len(good)


def test_boxes_names_and_exclusions(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    cut = drawing(1).convert("RGBA")
    alpha = cut.getchannel("A").point(lambda _: 0)
    alpha.paste(255, (10, 20, 50, 60))
    cut.putalpha(alpha)
    (root / "cut.png").write_bytes(encoded(cut, "PNG"))
    for n in range(2, 7):
        (root / f"{n}.jpg").write_bytes(encoded(drawing(n)))
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench/x.png").write_bytes(encoded(drawing(6).resize((192, 128)), "PNG"))
    rows = [
        {"path": "cut.png", "entity": "Wren", "category": "bird"},
        {"path": "2.jpg", "entity": "Wren", "category": "bird", "box": [1, 2, 96.5, 64]},
        {"path": "3.jpg", "entity": "Wren", "category": "bird", "box": [1, 2, 120, 64]},
        {"path": "4.jpg", "entity": "Wren", "category": "bird", "box": "none"},
        {"path": "5.jpg", "entity": "", "category": "bird"},
        {"path": "6.jpg", "entity": "Wren", "category": "bird"},
        {"path": "../bench/x.png", "entity": "Wren", "category": "bird"},
        {"path": "none.jpg", "entity": "Wren", "category": "bird"},
    ]
    (root / "list.json").write_text(json.dumps(rows))
    settings = {"class_path": "kvg.catalogue.tables.Table", "init_args": {"path": str(root / "list.json")}}
    path = project(tmp_path, root, sources={"list": settings}, exclude=[str(tmp_path / "bench")])
    assert main(["scan", str(path)]) == 0
    found = {e.ref: (e.box_px, e.box_from) for e in read_catalogue(tmp_path / "made/catalogue.jsonl")}
    assert found == {"cut.png": ((10, 20, 50, 60), "alpha"), "2.jpg": ((1, 2, 96, 64), "given")}
    reasons = rejected(tmp_path / "made")
    for ref, reason in {
        "3.jpg": "does not lie inside its 96x64 picture",
        "4.jpg": "is not four numbers [x1, y1, x2, y2]",
        "5.jpg": "must be text that is not empty",
        "6.jpg": "x.png, which must not be trained on",
        "../bench/x.png": "leads out of",
        "none.jpg": "cannot be opened",
    }.items():
        assert reason in reasons[ref]


def test_a_picture_that_came_later_is_in_the_next_catalogue(tmp_path):
    fill(tmp_path / "in", 80)
    path = project(tmp_path, tmp_path / "in")
    assert main(["scan", str(path)]) == 0
    before = outputs(tmp_path / "made")
    assert main(["scan", str(path)]) == 0
    assert outputs(tmp_path / "made") == before
    (tmp_path / "in/bird/Kind 0/00000.jpg").write_bytes(encoded(drawing(998)))
    assert main(["scan", str(path)]) == 0
    assert outputs(tmp_path / "made") != before
    (tmp_path / "in/bird/Kind 0/later.jpg").write_bytes(encoded(drawing(999)))
    assert main(["scan", str(path)]) == 0
    found = {e.ref: e.sha256 for e in read_catalogue(tmp_path / "made/catalogue.jsonl")}
    assert len(found) == 81
    assert found["bird/Kind 0/00000.jpg"] not in before["catalogue.jsonl"].decode()


def refused(path: Path, **options) -> str:
    """What the command says where it has to give up."""
    command = [sys.executable, "-m", "kvg.cli.kvg_data", "scan", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_disk_that_takes_nothing_more(tmp_path):
    fill(tmp_path / "in", 80)
    full = project(tmp_path, tmp_path / "in")
    said = refused(full, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)))
    assert "made/scan.units: out: cannot be written (File too large); free disk space" in said
    assert main(["scan", str(full)]) == 0
    assert len(list(read_catalogue(tmp_path / "made/catalogue.jsonl"))) == 80
    nowhere = project(tmp_path, tmp_path / "in", out=str(tmp_path / "made.yaml/x"))
    assert "cannot be written (Not a directory)" in refused(nowhere)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"sources": {}}, "sources: are missing"),
        ({"sources": {"": {"class_path": CLASS, "init_args": {"root": "in"}}}}, "sources: have an empty name"),
        ({"colour": 1}, "colour: is unknown"),
        ({"scan": {"min_size": 3}}, "scan.min_size: is unknown; choose from min_side"),
        ({"splits": {"val": 2}}, "splits.val: 2 is not a share"),
        ({"seed": "x"}, "'x' should be a whole number"),
        ({"sources": {"a": {"class_path": "kvg.Nothing"}}}, "sources.a.class_path: 'kvg.Nothing'"),
        ({"sources": {"a": {"class_path": CLASS, "init_args": {"rot": 1}}}}, "sources.a.init_args"),
        ({"exclude": ["nowhere"]}, "nowhere: exclude: is neither a folder nor a parquet file"),
        ({"scan": {"min_side": 5000}}, "list no picture that can be used; the first: bird/Kind 0/00000.jpg"),
    ],
)
def test_settings_that_cannot_work_say_what_to_do(tmp_path, capsys, sections, message):
    fill(tmp_path / "in", 1)
    assert main(["scan", str(project(tmp_path, tmp_path / "in", **sections))]) == 2
    assert message in capsys.readouterr().err


def test_pictures_without_a_box_are_counted_and_close_ups_are_boxed_whole(tmp_path, capsys):
    good, _ = fill(tmp_path / "in", 16)
    path = project(tmp_path, tmp_path / "in", compose={"sets": {"train": {"num": 4}}})
    assert main(["scan", str(path)]) == 0
    assert (
        f"16 of them have no box, so no composite can use them yet: let a model box them (`kvg-data box {path}`)"
        in (capsys.readouterr().out)
    )
    assert main(["compose", str(path)]) == 2
    assert "box_px: no picture with a box is for train; run `kvg-data scan`" in capsys.readouterr().err

    path = project(tmp_path, tmp_path / "in", scan={"close_ups": ["photos"]}, compose={"sets": {"train": {"num": 4}}})
    assert main(["scan", str(path)]) == 0
    assert "have no box" not in capsys.readouterr().out
    entries = list(read_catalogue(tmp_path / "made/catalogue.jsonl"))
    assert len(entries) == len(good)
    assert {(entry.box_px, entry.box_from) for entry in entries} == {((0, 0, 96, 64), "picture")}
    assert main(["compose", str(path)]) == 0


def test_close_ups_are_names_of_sources(tmp_path, capsys):
    fill(tmp_path / "in", 4)
    assert main(["scan", str(project(tmp_path, tmp_path / "in", scan={"close_ups": ["phone"]}))]) == 2
    assert "scan.close_ups: 'phone' is no source; there are photos" in capsys.readouterr().err


def test_entities_that_are_only_tested_are_counted(tmp_path, capsys):
    fill(tmp_path / "in", 8)  # one picture of each of eight entities
    path = project(tmp_path, tmp_path / "in", splits={"val": 0.5, "test": 0.0})
    assert main(["scan", str(path)]) == 0
    uses = [entry.use for entry in read_catalogue(tmp_path / "made/catalogue.jsonl")]
    assert 0 < uses.count("val") < 8
    assert f"{uses.count('val')} entities of seen categories have pictures for val and none for training" in (
        capsys.readouterr().out
    )
