"""Preparing photographs, from packages that are made here: what is fetched, read and written."""

from __future__ import annotations

import csv
import io
import json
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from PIL import Image

from kvg.cli.kvg_data import main
from kvg.errors import DataError

from . import prepare as made
from .prepare import prepare, read_rcc

README = """Copyright: Ann Author
  2019 Bob Builder
License: CC-BY-SA 4.0
Files:
a.webp

License: Public Domain
Files: b.webp
"""


def resource(files: dict[str, bytes], *, folders: tuple[str, ...] = ("top",), version: int = 2, packed: bool = True):
    """A Qt resource file with files in the last of nested folders, byte by byte."""
    names = ["", *folders, *files]
    starts, table = [], b""
    for name in names:
        starts.append(len(table))
        table += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    contents, offsets = b"", []
    for data in files.values():
        offsets.append(len(contents))
        inside = struct.pack(">I", len(data)) + zlib.compress(data) if packed else data
        contents += struct.pack(">I", len(inside)) + inside
    tail = b"" if version == 1 else bytes(8)  # when it was changed
    tree = b""
    for number, start in enumerate(starts[: len(folders) + 1]):
        num = 1 if number < len(folders) else len(files)
        tree += struct.pack(">IHII", start, 2, num, number + 1) + tail
    for start, offset in zip(starts[len(folders) + 1 :], offsets, strict=True):
        tree += struct.pack(">IHHHI", start, int(packed), 0, 0, offset) + tail
    head = 20 if version < 3 else 24
    at = (head, head + len(tree), head + len(tree) + len(contents))
    flags = b"" if version < 3 else bytes(4)
    return b"qres" + struct.pack(">4I", version, *at) + flags + tree + contents + table


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("packed", [True, False])
def test_resource_files_are_read(version, packed):
    files = {"one.webp": b"first" * 100, "zwei ä.txt": b""}
    assert read_rcc(resource(files, version=version, packed=packed), "x.rcc") == {
        "top/one.webp": b"first" * 100,
        "top/zwei ä.txt": b"",
    }


def test_a_damaged_resource_file_is_a_clear_error_wherever_it_is_cut():
    whole = resource({"one.webp": b"first" * 100})
    for length in range(len(whole)):
        with pytest.raises(DataError, match=r"x\.rcc"):
            read_rcc(whole[:length], "x.rcc")


@pytest.mark.parametrize("folder", ["..", "a/b", "a\\b", "."])
def test_no_name_leads_out_of_its_folder(folder):
    with pytest.raises(DataError, match="is no name of a file"):
        read_rcc(resource({"one.webp": b"x"}, folders=(folder,)), "x.rcc")


def test_a_folder_that_lists_itself_is_found():
    data = bytearray(resource({"one.webp": b"x"}))
    struct.pack_into(">I", data, 20 + 22 + 10, 1)  # the first child of node 1 is node 1
    with pytest.raises(DataError, match="lists what cannot be in it"):
        read_rcc(bytes(data), "x.rcc")


def test_contents_that_unpack_to_too_much_are_refused(monkeypatch):
    monkeypatch.setattr(made, "MAX_BYTES", 1000)
    assert read_rcc(resource({"one.webp": bytes(999)}), "x.rcc") == {"top/one.webp": bytes(999)}
    with pytest.raises(DataError, match="more than 1000 bytes"):
        read_rcc(resource({"one.webp": bytes(100_000)}), "x.rcc")


def photo(colour: int) -> bytes:
    stream = io.BytesIO()
    image = Image.radial_gradient("L").rotate(colour).convert("RGB").resize((80, 60 + colour))
    image.save(stream, "PNG")
    return stream.getvalue()


def package(folder: Path, name: str, files: dict[str, bytes]) -> None:
    tree = folder / "tree"
    for path, data in {
        **files,
        "DEBIAN/control": f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: n\nDescription: d\n".encode(),
    }.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(data)
    subprocess.run(["dpkg-deb", "-b", str(tree), f"{folder}/{name}_1_all.deb"], check=True, capture_output=True)
    shutil.rmtree(tree)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg")
def test_packages_become_a_list_that_can_be_scanned(tmp_path, monkeypatch, capsys):
    packages = tmp_path / "out" / "packages"
    packages.mkdir(parents=True)
    stamps, stars = "usr/share/tuxpaint/stamps", "usr/share/stellarium/nebulae/default"
    package(packages, "tuxpaint-stamps-default", {f"{stamps}/birds/owl.png": photo(1), f"{stamps}/x.png": b"unused"})
    credits = b'{"x": -.5, "imageCredits" : {"Short": "Eve Eye", "infoUrl": "u"},\n "imageUrl" : "m1.png"}'
    package(packages, "stellarium-data", {f"{stars}/m1.png": photo(20), f"{stars}/textures.json": credits})
    inside = {"README": README.encode(), "a.webp": photo(40), "b.webp": photo(70)}
    rcc = resource(inside, folders=("gcompris", "src", "activities", "erase", "resource"))
    package(packages, "gcompris-qt-data", {"usr/share/gcompris-qt/rcc/erase.rcc": rcc})
    listed = tmp_path / "pictures.csv"
    listed.write_text(
        "category,entity,picture,x1,y1,x2,y2\n"
        "bird,Snowy Owl,stamps/birds/owl.png,,,,\n"
        "bird,Lost Bird,stamps/birds/lost.png,,,,\n"
        "bird,Heron,gcompris/erase/a.webp,,,,\n"
        "bird,Swan,gcompris/erase/b.webp,,,,\n"
        "nebula,Crab Nebula,stellarium/m1.png,5,6,70,71\n"
    )
    monkeypatch.setattr(made, "PICTURES", listed)
    out = tmp_path / "out"
    prepare(out)
    said = capsys.readouterr()
    assert "4 pictures of 4 entities" in said.out
    assert "left out: stamps/birds/lost.png is not in this version of tuxpaint-stamps-default" in said.err
    rows = list(csv.DictReader((out / "photographs.csv").read_text().splitlines()))
    assert [(row["entity"], row["licence"], row["author"], row["x1"]) for row in rows] == [
        ("Snowy Owl", "GPL-2", "", ""),
        ("Heron", "CC-BY-SA-4.0", "Ann Author; 2019 Bob Builder", ""),
        ("Swan", "public domain", "", ""),
        ("Crab Nebula", "GPL-2+", "Eve Eye", "5"),
    ]
    assert (out / rows[0]["path"]).read_bytes() == photo(1)
    assert sorted(path.name for path in out.iterdir()) == ["bird", "nebula", "packages", "photographs.csv"]
    first = (out / "photographs.csv").read_bytes()
    prepare(out)  # nothing is fetched again, and nothing changes
    assert (out / "photographs.csv").read_bytes() == first

    project = tmp_path / "project.yaml"
    source = {"class_path": "kvg.catalogue.tables.Table", "init_args": {"path": str(out / "photographs.csv")}}
    project.write_text(json.dumps({"out": str(tmp_path / "scan"), "sources": {"photographs": source}}))
    assert main(["scan", str(project)]) == 0
    counts = json.loads((tmp_path / "scan" / "scan.json").read_text())
    assert counts["category"] == {"bird": 3, "nebula": 1}
    assert counts["box_from"] == {"-": 3, "given": 1}


def test_a_package_that_is_none_is_a_clear_error(tmp_path):
    if shutil.which("dpkg") is None:
        pytest.skip("needs dpkg")
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "tuxpaint-stamps-default_1_all.deb").write_bytes(b"no package")
    with pytest.raises(DataError, match=r"tuxpaint-stamps-default_1_all\.deb: package: cannot be read"):
        prepare(tmp_path)
