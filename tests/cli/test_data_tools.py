"""The commands of the data engine, run as a user would run them, on files that the test makes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from kvg.cli import compose, inspect, rationalize, verify
from kvg.cli.kvg_data import main
from kvg.errors import ConfigError, DataError
from kvg.shards.reader import ShardFolder


def call(tool, *arguments):
    parser = argparse.ArgumentParser()
    tool.add_arguments(parser)
    return tool.run(parser.parse_args([str(a) for a in arguments]))


def samples(folder):
    return [s for part in ShardFolder(folder).parts() for _, s in part.read()]


def scanned(folder: Path) -> Path:
    """The project of ``photos``, scanned; all pictures are for training."""
    source = {"class_path": "kvg.catalogue.folders.ImageFolder", "init_args": {"root": str(folder / "photos")}}
    splits = {"val": 0, "test": 0, "copy_distance": 0, "two_names": "keep"}
    path = folder / "project.yaml"
    path.write_text(yaml.safe_dump({"out": str(folder / "scan"), "sources": {"mine": source}, "splits": splits}))
    assert main(["scan", str(path)]) == 0
    return path


@pytest.fixture
def config(tmp_path) -> Path:
    for i, name in enumerate(("Merlin", "Osprey", "Red_Kite")):
        path = tmp_path / f"photos/bird/{name}/1.png"
        path.parent.mkdir(parents=True)
        image = Image.new("RGBA", (90, 70), (0, 0, 0, 0))
        image.paste((80 * i, 120, 90, 255), (10, 10, 80, 60))
        image.save(path)
    setting = {
        "source": {
            "class_path": "kvg.composites.catalogue_tiles.CatalogueTiles",
            "init_args": {"project": str(scanned(tmp_path))},
        },
        "compositor": {"canvas_sizes": [[200, 160]], "k_weights": {2: 1, 3: 1}},
    }
    path = tmp_path / "compose.yaml"
    path.write_text(yaml.safe_dump(setting))
    return path


def change(path: Path, **changes) -> Path:
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))
    return path


def test_from_photographs_to_a_page(config, tmp_path, capsys):
    plain, told = tmp_path / "plain", tmp_path / "told"
    assert call(compose, "--config", config, "--out", plain, "--num", 7, "--seed", 4, "--samples-per-shard", 3) == 0
    assert "7 composites" in capsys.readouterr().out
    assert call(rationalize, "--in", plain, "--out", told, "--writer", "cards") == 0
    assert "7 rationales" in capsys.readouterr().out
    assert call(verify, told) == 0
    assert "all right" in capsys.readouterr().out
    before, after = samples(plain), samples(told)
    assert [s.key for s in before] == [s.key for s in after] == [f"s4-{i:07d}" for i in range(7)]
    assert [s.image for s in before] == [s.image for s in after]
    assert all(s.rationale.startswith(f"Plan: find the {s.entity} among") for s in after)
    manifest = ShardFolder(told).manifest
    assert (manifest.seed, manifest.config["rationale"]["writer"]) == (4, "cards")
    assert manifest.config["compositor"]["k_weights"] == {"2": 1, "3": 1}

    assert call(inspect, told, "--num", 5) == 0
    out = capsys.readouterr().out
    assert "bird" in out
    assert "7 samples; pictures in" in out
    page = (told / "contact_sheet.html").read_text("utf-8")
    assert page.count("<figure class=case>") == 5
    assert page.count("data:image/jpeg;base64,") == 5
    assert "://" not in page
    assert "&lt;box:" not in page  # placeholders are shown as object numbers


def test_any_number_of_workers_makes_the_same_set(config, tmp_path):
    for workers in (1, 2):
        call(compose, "--config", config, "--out", tmp_path / f"w{workers}", "--num", 20, "--workers", workers)
    one, two = (ShardFolder(tmp_path / f"w{i}").manifest for i in (1, 2))
    assert one.shards == two.shards


def test_a_name_with_markup_does_no_harm(config, tmp_path):
    folder = tmp_path / "photos/bird"
    (folder / "Merlin").rename(folder / "<script>alert(1)<")
    scanned(tmp_path)
    call(compose, "--config", config, "--out", tmp_path / "set", "--num", 6)
    call(inspect, tmp_path / "set")
    page = (tmp_path / "set/contact_sheet.html").read_text("utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compositor": {"colour": "red"}}, "compositor.colour: is unknown; choose from"),
        ({"compositr": {}}, "compositr: is unknown"),
        (
            {"source": {"class_path": "kvg.composites.sources.Nowhere"}},
            "source.class_path: 'kvg.composites.sources.Now",
        ),
        ({"source": {"class_path": ""}}, "source.class_path"),
        ({"source": {"class_path": "kvg.composites.catalogue_tiles.CatalogueTiles"}}, "source.init_args: .*project"),
        ({"source": "photos"}, "source: 'photos' names no class; write {class_path: ..., init_args: ...}"),
    ],
)
def test_wrong_configs(config, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        call(compose, "--config", change(config, **changes), "--out", tmp_path / "set", "--num", 3)
    assert not (tmp_path / "set").exists()


def test_config_that_is_none(tmp_path):
    for text in ("[]", "a: [", "compositor: {}"):
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(ConfigError):
            call(compose, "--config", tmp_path / "x.yaml", "--out", tmp_path / "set", "--num", 3)
    with pytest.raises(ConfigError, match="cannot be opened"):
        call(compose, "--config", tmp_path / "no.yaml", "--out", tmp_path / "set", "--num", 3)


def test_a_set_is_not_overwritten_by_chance(config, tmp_path):
    arguments = ("--config", config, "--out", tmp_path / "set", "--num", 2)
    call(compose, *arguments)
    with pytest.raises(ConfigError, match="already contains a set"):
        call(compose, *arguments)
    assert call(compose, *arguments, "--overwrite") == 0


def test_verify_names_every_problem(config, tmp_path, capsys):
    folder = tmp_path / "set"
    call(compose, "--config", config, "--out", folder, "--num", 9, "--samples-per-shard", 3)
    first, second = folder / "shard-000000.tar", folder / "shard-000001.tar"
    data = bytearray(first.read_bytes())
    start = data.find(b"s0-0000001.jpg") + 512
    data[start : start + 8] = bytes(8)
    first.write_bytes(bytes(data))
    second.write_bytes(second.read_bytes()[:6000])
    capsys.readouterr()
    assert call(verify, folder) == 1
    out = capsys.readouterr().out
    assert out.count("sha256: differs") == 2
    assert "shard-000000.tar sample s0-0000001: image: is neither JPEG nor PNG" in out
    assert "shard-000001.tar" in out.split("cut off or damaged")[0]
    assert "shard-000001.tar: size: has 6000 bytes, the manifest says" in out
    assert f"{folder}: 5 problems" in out


def test_rationalize_keeps_every_sample(tmp_path, config):
    call(compose, "--config", config, "--out", tmp_path / "set", "--num", 4)
    whole = samples(tmp_path / "set")
    assert call(rationalize, "--in", tmp_path / "set", "--out", tmp_path / "told") == 0
    assert len(samples(tmp_path / "told")) == len(whole)
    with pytest.raises(DataError, match="does not exist"):
        call(rationalize, "--in", tmp_path / "nowhere", "--out", tmp_path / "x")


def test_manifest_config_is_the_one_given(config, tmp_path):
    call(compose, "--config", config, "--out", tmp_path / "set", "--num", 2, "--seed", 9)
    record = json.loads((tmp_path / "set/manifest.json").read_text())
    assert record["config"]["compositor"]["seed"] == record["seed"] == 9
    assert record["config"]["source"]["class_path"] == "kvg.composites.catalogue_tiles.CatalogueTiles"
