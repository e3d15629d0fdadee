"""A project file from pictures to rationales: every command reads its own section and does what is not done yet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from PIL import Image, ImageDraw

from kvg.cli.kvg_data import main
from kvg.errors import DataError
from kvg.inference.request import Client, Outcome
from kvg.shards.reader import ShardFolder

KINDS = {
    "bird": {"Merlin": "grey", "Osprey": "brown", "Red Kite": "red", "Hoopoe": "orange"},
    "fruit": {"Lemon": "yellow", "Lime": "green", "Plum": "purple"},
}


@pytest.fixture
def project(tmp_path) -> Path:
    for category, entities in KINDS.items():
        for entity, colour in entities.items():
            for number in range(3):
                image = Image.new("RGBA", (90, 70), (0, 0, 0, 0))
                pen = ImageDraw.Draw(image)
                pen.ellipse((10, 10, 80, 60), colour)
                pen.rectangle((20 + 7 * number, 20, 30 + 7 * number, 45 - 5 * number), "white")
                path = tmp_path / f"in/{category}/{entity}/{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)
    facts = {entity: f"{colour} body, white patch" for kinds in KINDS.values() for entity, colour in kinds.items()}
    (tmp_path / "facts.yaml").write_text(yaml.safe_dump(facts))
    settings = {
        "seed": 3,
        "out": str(tmp_path / "out"),
        "sources": {
            "mine": {
                "class_path": "kvg.catalogue.folders.ImageFolder",
                "init_args": {"root": str(tmp_path / "in")},
            }
        },
        "splits": {"unseen": ["fruit"], "val": 0, "test": 0, "copy_distance": 0},
        "compose": {
            "sets": {
                "train": {"num": 9},
                "unseen": {"num": 4, "uses": ["test"], "compositor": {"k_weights": {2: 1}}},
            },
            "facts": str(tmp_path / "facts.yaml"),
            "compositor": {"canvas_sizes": [[200, 160]], "k_weights": {2: 1, 3: 1}},
            "samples_per_shard": 4,
        },
    }
    path = tmp_path / "project.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def change(path: Path, **sections) -> None:
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **sections}))


def samples(folder: Path):
    return [s for part in ShardFolder(folder).parts() for _, s in part.read()]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_from_pictures_to_rationales(project, tmp_path, capsys):
    for command in ("scan", "compose", "rationalize"):
        assert main([command, str(project)]) == 0, capsys.readouterr().err
    out = tmp_path / "out"
    train, unseen = samples(out / "rationales/train"), samples(out / "rationales/unseen")
    assert [s.key for s in train] == [f"s300-{i:07d}" for i in range(9)]  # seed 3, set 0
    assert [s.key for s in unseen] == [f"s301-{i:07d}" for i in range(4)]
    assert {s.category for s in train} == {"bird"}
    assert {s.category for s in unseen} == {"fruit"}
    assert all(s.rationale.startswith(f"Plan: the {s.entity} is ") for s in train + unseen)
    assert {len(s.objects) for s in unseen} == {2}
    assert len(ShardFolder(out / "composites/train").manifest.shards) == 3


def test_what_is_there_stays_until_its_settings_change(project, tmp_path, capsys):
    for command in ("scan", "compose", "rationalize"):
        main([command, str(project)])
    before = files(tmp_path / "out")
    capsys.readouterr()
    assert main(["compose", str(project)]) == 0
    assert main(["rationalize", str(project)]) == 0
    assert capsys.readouterr().out.count("is there already") == 4
    assert files(tmp_path / "out") == before
    (tmp_path / "facts.yaml").write_text((tmp_path / "facts.yaml").read_text().replace("white patch", "white spot"))
    assert main(["compose", str(project), "--set", "unseen"]) == 0
    assert main(["rationalize", str(project), "--set", "unseen"]) == 0
    assert "is there already" not in capsys.readouterr().out
    assert all("white spot" in s.rationale for s in samples(tmp_path / "out/rationales/unseen"))


def test_a_scan_that_would_find_nothing_new_can_be_left_out(project, tmp_path, capsys):
    assert main(["scan", str(project), "--if-changed"]) == 0
    assert "21 pictures of 7 entities" in capsys.readouterr().out
    assert main(["scan", str(project), "--if-changed"]) == 0
    assert "is there already" in capsys.readouterr().out
    (tmp_path / "in/bird/Merlin/2.png").unlink()
    assert main(["scan", str(project), "--if-changed"]) == 0
    assert "20 pictures of 7 entities" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("compose", {"sets": {}}, "compose.sets: names no set"),
        ("compose", {"sets": {"train": {}}}, "compose.sets.train.num: is missing; it should be a whole number"),
        (
            "compose",
            {"sets": {"train": {"num": 3, "use": ["val"]}}},
            "compose.sets.train.use: is unknown; choose from num, uses",
        ),
        ("compose", {"sets": {"../x": {"num": 3}}}, "compose.sets.../x: is not a plain name"),
        ("compose", {"sets": {"train": {"num": 3, "uses": ["vla"]}}}, "source.uses: ['vla'] are not some of"),
        ("compose", {"set": {"train": {"num": 3}}}, "compose.set: is unknown"),
        ("composes", {}, "composes: is unknown"),
    ],
)
def test_settings_that_cannot_work_stop_before_anything_is_made(project, tmp_path, capsys, section, value, message):
    assert main(["scan", str(project)]) == 0
    change(project, **{section: value})
    assert main(["compose", str(project)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out/composites").exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"writer": "teacher"}, "rationalize.teacher: is missing"),
        ({"writer": "monkeys"}, "rationalize.writer: 'monkeys' is none of cards, teacher"),
        ({"writer": "teacher", "teacher": {"class_path": "no.Such"}}, "rationalize.teacher.class_path: 'no.Such'"),
        ({"sets": ["trian"]}, "rationalize.sets: have no 'trian'; there are train, unseen"),
        ({"max_attempts": 0}, "rationalize.max_attempts: 0 must be at least 1"),
    ],
)
def test_writers_that_cannot_work(project, capsys, value, message):
    for command in ("scan", "compose"):
        main([command, str(project)])
    change(project, rationalize=value)
    assert main(["rationalize", str(project)]) == 2
    assert message in capsys.readouterr().err


def test_a_project_that_has_not_been_scanned(project, capsys):
    assert main(["compose", str(project)]) == 2
    assert "is missing; run `kvg-data scan" in capsys.readouterr().err
    assert main(["compose", str(project), "--set", "trian"]) == 2
    assert "have no 'trian'" in capsys.readouterr().err


def test_a_sample_that_cannot_be_told_is_set_aside(project, tmp_path, capsys):
    change(project, compose={**yaml.safe_load(project.read_text())["compose"], "facts": None})
    for command in ("scan", "compose"):
        main([command, str(project)])
    folder = tmp_path / "out/composites/train"
    plain = samples(folder)
    assert all(s.objects[0].traits == () for s in plain)
    assert main(["rationalize", "--in", str(folder), "--out", str(tmp_path / "told")]) == 0
    assert "9 rationales" in capsys.readouterr().out
    assert not (tmp_path / "told/set_aside.jsonl").exists()


class Teacher(Client):
    """An client that has a good answer for every other request, and none for the rest; it stops where it is told to."""

    stop_after: int | None = None
    asked: ClassVar[list[str]] = []

    def ask(self, requests, validator, work, max_attempts=1):
        for number, request in enumerate(requests):
            if Teacher.stop_after is not None and number >= Teacher.stop_after:
                raise DataError("teacher", "server", "has gone")
            Teacher.asked.append(request.key)
            box = request.text.split("The bounding box of ")[1].split(" is ")[1].split(".")[0]
            name = request.text.split("The bounding box of ")[1].split(" is ")[0]
            good = f"Plan: a {name} has this.\nLook: 1 {box} has it.\nCompare: it does.\nConclusion: {name} {box}."
            try:
                bad = number % 2 and "Plan: no idea."
                yield Outcome(request, (validator(request, bad or good),))
            except DataError as error:
                yield Outcome(request, (), (f"{error.field}: {error.remedy}",))

    def summary(self):
        return f"{len(Teacher.asked)} answers"

    def identity(self):
        return "a script"


def teacher_file(folder: Path) -> str:
    path = folder / "teacher.yaml"
    setting = {"teacher": {"class_path": f"{__name__}.Teacher"}, "rules": {"min_words": 5}}
    path.write_text(yaml.safe_dump(setting))
    return str(path)


def test_a_teacher_without_a_good_answer_costs_that_sample(project, tmp_path, capsys):
    for command in ("scan", "compose"):
        main([command, str(project)])
    source, out = tmp_path / "out/composites/train", tmp_path / "told"
    Teacher.asked, Teacher.stop_after = [], None
    command = ["rationalize", "--in", str(source), "--out", str(out), "--teacher", teacher_file(tmp_path)]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "5 rationales" in told
    assert "4 set aside (parts 4)" in told
    assert "9 answers" in told
    kept = {s.key: s for s in samples(out)}
    assert list(kept) == [f"s300-{i:07d}" for i in range(0, 9, 2)]
    aside = [json.loads(line) for line in (out / "set_aside.jsonl").read_text().splitlines()]
    assert [entry["key"] for entry in aside] == [f"s300-{i:07d}" for i in range(1, 9, 2)]
    assert all(entry["reasons"] == ["parts: Look is missing"] for entry in aside)
    for sample in samples(source):
        if sample.key in kept:
            assert kept[sample.key].image == sample.image
            assert f"<box:{sample.target}>" in kept[sample.key].rationale
    assert main(["verify", str(out)]) == 0


def test_when_the_teacher_goes_whole_shards_stay(project, tmp_path, capsys):
    for command in ("scan", "compose"):
        main([command, str(project)])
    source = str(tmp_path / "out/composites/train")  # shards of 4, 4 and 1
    Teacher.asked, Teacher.stop_after = [], None
    teacher = teacher_file(tmp_path)
    assert main(["rationalize", "--in", source, "--out", str(tmp_path / "whole"), "--teacher", teacher]) == 0
    Teacher.asked, Teacher.stop_after = [], 6
    command = ["rationalize", "--in", source, "--out", str(tmp_path / "cut"), "--teacher", teacher]
    assert main(command) == 2
    assert "teacher: server: has gone" in capsys.readouterr().err
    assert not (tmp_path / "cut/manifest.json").exists()
    Teacher.asked, Teacher.stop_after = [], None
    assert main(command) == 0
    assert len(Teacher.asked) == 5  # the first shard was whole
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_rationales_without_facts_are_counted_and_can_be_left_out(project, tmp_path, capsys, caplog):
    facts = {"Merlin": "grey body, white patch", "Osprey": "brown body"}
    (tmp_path / "facts.yaml").write_text(yaml.safe_dump(facts))
    for command in ("scan", "compose", "rationalize"):
        assert main([command, str(project), *(["--set", "train"] if command != "scan" else [])]) == 0
    assert "2 of 4 entities have facts, 2 have none: Hoopoe, Red Kite" in caplog.text
    made = samples(tmp_path / "out/rationales/train")
    plain = [s for s in made if s.rationale.startswith(f"Plan: find the {s.entity} among")]
    assert 0 < len(plain) < len(made) == 9
    assert f"{len(plain)} of 9 rationales only name the objects, since 2 entities have no facts (" in caplog.text

    capsys.readouterr()
    change(project, rationalize={"min_facts": 1})
    assert main(["rationalize", str(project), "--set", "train"]) == 0
    assert len(samples(tmp_path / "out/rationales/train")) == 9 - len(plain)
    assert f"{len(plain)} set aside (facts {len(plain)})" in capsys.readouterr().out
    lines = (tmp_path / "out/rationales/train/set_aside.jsonl").read_text().splitlines()
    assert len(lines) == len(plain)
    assert "has 0, min_facts is 1; add some" in lines[0]

    source, out = str(tmp_path / "out/composites/train"), str(tmp_path / "again")
    assert main(["rationalize", "--in", source, "--out", out, "--min-facts", "3"]) == 2
    assert "none could be written (facts: " in capsys.readouterr().err
    change(project, rationalize={"min_facts": -1})
    assert main(["rationalize", str(project)]) == 2
    assert "rationalize.min_facts: -1 must be at least 0" in capsys.readouterr().err
