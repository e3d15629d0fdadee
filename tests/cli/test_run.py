"""`kvg-data run`: all steps of a project, each a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kvg.cli.kvg_data import main
from kvg.shards.reader import ShardFolder
from tests.cli.test_project import change, files, project  # noqa: F401 - a fixture


def test_one_command_makes_everything(project, tmp_path, capfd):  # noqa: F811
    assert main(["run", str(project)]) == 0, capfd.readouterr().err
    told = capfd.readouterr().out
    assert [line for line in told.splitlines() if line.startswith("-- ")] == [
        "-- scan", "-- compose", "-- rationalize", "-- shard",
    ]  # fmt: skip
    train = ShardFolder(tmp_path / "out/shards/train").manifest
    assert (train.num_samples, train.counts["rationale"]) == (9, {"yes": 9})
    before = files(tmp_path / "out")
    assert main(["run", str(project)]) == 0
    assert capfd.readouterr().out.count("is there already") == 1 + 2 + 2 + 2
    assert files(tmp_path / "out") == before


def test_it_stops_where_it_is_told_to(project, tmp_path):  # noqa: F811
    assert main(["run", str(project), "--to", "compose"]) == 0
    assert (tmp_path / "out/composites/unseen/manifest.json").exists()
    assert not (tmp_path / "out/rationales").exists()


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("rationalize", {"writer": "monkeys"}, "rationalize.writer: 'monkeys'"),
        ("filter", {"checkpoint": "lab", "samples": 0}, "filter.samples: 0 must be at least 1"),
        ("filter", {"chekpoint": "lab"}, "filter.chekpoint: is unknown"),
        ("shard", {"sets": ["trian"]}, "shard.sets: have no 'trian'"),
        ("shard", {"size": 3}, "shard.size: is unknown"),
        ("box", {"sample": 3}, "box.sample: is unknown"),
        ("probe", {"pictures": 0}, "probe"),
    ],
)
def test_a_wrong_setting_of_the_last_step_stops_the_first(project, tmp_path, capsys, section, value, message):  # noqa: F811
    change(project, **{section: value})
    assert main(["run", str(project)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_step_that_fails_ends_it(project, tmp_path, capfd):  # noqa: F811
    (tmp_path / "facts.yaml").unlink()
    assert main(["run", str(project)]) == 2
    error = capfd.readouterr().err
    assert "facts.yaml cannot be opened" in error
    assert "kvg-data compose has failed" in error


def test_the_documented_project_file_is_one():
    from kvg.pipeline.settings.project import load_project

    path = Path(__file__).parents[2] / "configs/project.yaml"
    load_project(path).check_classes()
    text = path.read_text()
    for section in ("box", "probe"):  # what is commented out has to be right, too
        lines = text[text.index(f"# {section}:") :].split("\n\n")[0].splitlines()
        settings = yaml.safe_load("\n".join(line.removeprefix("# ") for line in lines if line.startswith("# ")))
        assert settings[section]["client"]["class_path"] == "kvg.inference.server.Server"
