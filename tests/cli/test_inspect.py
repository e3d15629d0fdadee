"""`kvg-data inspect`: what it counts, which samples it shows, and what the page holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kvg.catalogue.entry import Entry, Rejection, to_line
from kvg.cli.kvg_data import main
from kvg.shards.writer import ShardWriter
from kvg.types import SceneObject
from tests.shards.conftest import build


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def mixed(tmp_path) -> Path:
    """Seven birds, of which two are unseen and have no rationale, and three cars of three objects."""
    with ShardWriter(tmp_path / "set", 4) as writer:
        for n in range(5):
            writer.write(build(n, provenance={"index": n}, licences=("CC0",)))
        for n in range(5, 7):
            writer.write(build(n, split="unseen", knowledge="", rationale=""))
        for n in range(7, 10):
            objects = tuple(SceneObject(name, (10 * i, 0, 10 * i + 8, 9)) for i, name in enumerate(("A", "B", "C")))
            writer.write(build(n, category="car", objects=objects, target=2, rationale="it is <box:2>"))
    return tmp_path / "set"


def inspect(folder: Path, capsys, *more: str) -> str:
    assert main(["inspect", str(folder), *more]) == 0
    return capsys.readouterr().out


def table(said: str, first: str) -> list[list[str]]:
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in said.splitlines() if line.startswith("│")]
    return [row for row in rows if re.fullmatch(first, row[0])]


def shown(folder: Path) -> list[str]:
    page = (folder / "contact_sheet.html").read_text("utf-8")
    return re.findall(r"<summary>(.*?)</summary>", page)


def test_counts(mixed, capsys):
    said = inspect(mixed, capsys)
    assert table(said, "bird|car|all") == [
        ["bird", "seen", "known", "5", "2", "2.00", "5"],
        ["bird", "unseen", "-", "2", "2", "2.00", "0"],
        ["car", "seen", "known", "3", "1", "3.00", "3"],
        ["all", "", "", "10", "3", "2.30", "8"],
    ]
    assert "objects a picture: 2: 7 (70%), 3: 3 (30%)" in said
    assert "rationales: 8 with, 2 without" in said
    assert "licences: CC0: 5 (50%), not known: 5 (50%)" in said
    assert re.search(r"files: 3, 0\.\d MB, 0\.0 to 0\.\d MB each", said)
    assert len(shown(mixed)) == 10


def test_samples_as_a_table_of_one_line_each(mixed, capsys):
    said = inspect(mixed, capsys, "--table", "2", "--num", "0", "--category", "car")
    rows = table(said, r"k\d+")
    assert len(rows) == 2
    assert all(row[1:] == ["car", "C", "3", "20,0,28,9", "it is <box:2>"] for row in rows)
    assert not (mixed / "contact_sheet.html").exists()


def test_which_samples_are_shown(mixed, capsys):
    inspect(mixed, capsys, "--key", "k0003", "--key", "k0008")
    assert sorted(shown(mixed)) == ["k0003", "k0008"]
    inspect(mixed, capsys, "--entity", "Merlin")
    assert sorted(shown(mixed)) == ["k0001", "k0003", "k0005"]
    inspect(mixed, capsys, "--entity", "Merlin", "--category", "bird", "--num", "2", "--seed", "1")
    assert set(shown(mixed)) < {"k0001", "k0003", "k0005"}
    draws = []
    for seed in ("0", "0", "1", "2", "3"):
        inspect(mixed, capsys, "--num", "4", "--seed", seed)
        draws.append(tuple(shown(mixed)))
    assert draws[0] == draws[1]
    assert len(set(draws)) > 1
    assert main(["inspect", str(mixed), "--key", "nothing"]) == 2
    assert "none has that category, entity or key" in capsys.readouterr().err
    assert main(["inspect", str(mixed), "--num", "-1"]) == 2


def test_the_page_ties_chips_to_boxes(mixed, capsys):
    inspect(mixed, capsys, "--key", "k0001")
    page = (mixed / "contact_sheet.html").read_text("utf-8")
    # Two boxes, the second asked for and drawn last; a chip a name, and one for each placeholder.
    assert re.findall(r"<g class='(box[ a-z]*)' data-n='(\d)'", page) == [("box", "1"), ("box asked", "2")]
    assert re.findall(r"<span class='(chip[ a-z]*)' data-n='(\d)'", page) == [("chip", "1"), ("chip asked", "2")] * 2
    colours = dict(re.findall(r"<g class='box[ a-z]*' data-n='(\d)' style='--c:(#\w+)'", page))
    assert set(re.findall(r"class='chip[ a-z]*' data-n='(\d)' tabindex=0 style='--c:(#\w+)'", page)) == set(
        colours.items()
    )
    assert len(set(colours.values())) == 2
    for n in (1, 2):
        assert f".case:has(.chip[data-n='{n}']:is(:hover,:focus)) .box[data-n='{n}'] rect.line" in page
    assert '<rect class="line" x="30.5" y="6" width="29.5" height="34"' in page
    assert "<b>Merlin</b>" in page
    assert "<em>Look:</em> <span" in page
    assert "&lt;box:" not in page
    assert "<td>index</td><td>1</td>" in page
    assert "<td>licences</td><td>CC0</td>" in page


def test_the_page_needs_nothing_else_and_runs_nothing(mixed, capsys):
    inspect(mixed, capsys)
    page = (mixed / "contact_sheet.html").read_text("utf-8")
    assert page.count("data:image/jpeg;base64,") == 10
    assert not re.search(r"https?://|<script|@import|<link|\son\w+=", page)


def test_names_with_markup_stay_names(tmp_path, capsys):
    evil = "[red]<script>alert(1)</script>'\"&"
    objects = (SceneObject(evil, (1, 1, 9, 9)), SceneObject("Merlin", (10, 10, 20, 20)))
    with ShardWriter(tmp_path / "set") as writer:
        changes = {"rationale": f"<box:0> {evil}", "provenance": {evil: evil}, "category": evil}
        writer.write(build(0, objects=objects, **changes))
    said = inspect(tmp_path / "set", capsys, "--table", "1")
    assert said.count(evil) >= 3
    page = (tmp_path / "set/contact_sheet.html").read_text("utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&#39;&#34;&amp;" in page


def test_published_files_and_another_place_for_the_page(mixed, tmp_path, capsys):
    assert main(["convert", "--in", str(mixed), "--out", str(tmp_path / "p.parquet"), "--to", "grpo"]) == 0
    capsys.readouterr()
    said = inspect(tmp_path / "p.parquet", capsys, "--out", str(tmp_path / "pages/p.html"))
    assert "10 samples; pictures in" in said
    assert (tmp_path / "pages/p.html").is_file()


def test_what_cannot_be_shown(tmp_path, mixed, capsys):
    for path in mixed.glob("*.tar"):
        path.write_bytes(b"x" * 2000)
    assert main(["inspect", str(mixed)]) == 2
    assert "samples: none can be read" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "nowhere")]) == 2


def test_a_scanned_project(tmp_path, capsys):
    rows = [
        ("Wren", "bird", "seen", "train", "CC0"),
        ("Wren", "bird", "seen", "val", ""),
        ("Koi", "fish", "unseen", "test", "CC0"),
    ]
    entries = [
        Entry("mine", f"{n}.png", entity, category, 40, 30, "0", "0", (1, 2, 3.5, 4), "given", "", licence, split, use)
        for n, (entity, category, split, use, licence) in enumerate(rows)
    ]
    (tmp_path / "catalogue.jsonl").write_text("".join(f"{to_line(entry)}\n" for entry in entries))
    (tmp_path / "rejected.jsonl").write_text(to_line(Rejection("mine", "x.png", "image", "is cut off")) + "\n")
    said = inspect(tmp_path, capsys, "--table", "5", "--entity", "Koi")
    assert table(said, "bird|fish|all") == [
        ["bird", "seen", "2", "1", "1", "1", "0", "2"],
        ["fish", "unseen", "1", "1", "0", "0", "1", "1"],
        ["all", "", "3", "2", "1", "1", "1", "3"],
    ]
    assert "sources: mine 3" in said
    assert "licences: CC0 2, not known 1" in said
    assert "left out: image 1" in said
    assert table(said, r"\d\.png") == [["2.png", "fish", "Koi", "test", "40x30", "1,2,3.5,4", "CC0"]]
