"""`kvg-data rationalize` with a teacher behind a real socket: good, bad, busy, killed in between, and gone."""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from kvg.cli.kvg_data import main
from kvg.shards.reader import ShardFolder
from tests.inference.scripted import MODEL, ScriptedServer, answer, cuts, question, says

NUM, PER_SHARD = 24, 5


@pytest.fixture(scope="module")
def composites(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rationalize") / "set"
    numbers = ["--num", str(NUM), "--samples-per-shard", str(PER_SHARD), "--seed", "7"]
    assert main(["compose", "--config", "configs/lab/train.yaml", "--out", str(folder), *numbers]) == 0
    return folder


def told(text: str) -> tuple[list[tuple[str, str]], str]:
    """What the teacher was told: names with their boxes, and the name that is meant."""
    shown = re.search(r"shows (.*?)\. The bounding box of (.*?) is ", text)
    assert shown is not None
    return re.findall(r"(?:^|, )(.+?) \((.+?)\)(?=, |$)", shown[1].replace("),(", ");(")), shown[2]


def rationale(text: str) -> str:
    things, name = told(text)
    lines = [f"{number} {box.replace(');(', '),(')} looks so." for number, (_, box) in enumerate(things, 1)]
    number = [thing for thing, _ in things].index(name) + 1
    return (
        f"**Planning:** A {name} has marks of its own, and I look for them.\n**Visual analysis:** {' '.join(lines)}\n"
        f"**Comparison:** Only object {number} has all the marks of a {name}, the others lack some.\n"
        f"**Conclusion:** Object {number} is the {name}."
    )


class School(ScriptedServer):
    """Answers as a teacher; each question first meets the faults that fall to it by its own draw.

    Args:
        faults: how many different faults there are before the answer; the same for a question in every run.
        slow: seconds for each answer.
    """

    def __init__(self, faults: int = 0, slow: float = 0.0, **settings) -> None:
        self.faults, self.slow, self.seen = faults, slow, Counter[str]()
        super().__init__(self.act, **settings)

    def act(self, number, body):
        text = question(body)
        self.seen[text] += 1
        kinds = [
            says({"error": "busy"}, 503),
            says({"error": "slow down"}, 429, Retry_After="0.01"),
            says(b'{"choices": [{"message"'),
            says({"choices": "none"}),
            cuts,
            says(answer("Plan: it is the left one. Conclusion: there.")),
            says(answer("")),
        ]
        order = random.Random(text).sample(kinds, len(kinds))[: self.faults]
        if self.seen[text] <= len(order):
            return order[self.seen[text] - 1]
        time.sleep(self.slow)
        return says(answer(rationale(text)))


def teacher(folder: Path, url: str, **settings) -> str:
    path = folder / "teacher.yaml"
    init = {"url": url, "model": MODEL, "backoff": 0.01, "retries": 4, "concurrency": 4, **settings}
    path.write_text(yaml.safe_dump({"teacher": {"class_path": "kvg.inference.server.Server", "init_args": init}}))
    return str(path)


def arguments(source: Path, out: Path, settings: str) -> list[str]:
    return ["rationalize", "--in", str(source), "--out", str(out), "--teacher", settings]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_busy_and_careless_teacher_is_asked_until_all_is_well(composites, tmp_path, capsys):
    with School(faults=3) as school:
        settings = teacher(tmp_path, school.url)
        assert main(arguments(composites, tmp_path / "out", settings)) == 0, capsys.readouterr().err
        out = capsys.readouterr().out
        assert f"{NUM} rationales in" in out
        before = [s for part in ShardFolder(composites).parts() for _, s in part.read()]
        after = [s for part in ShardFolder(tmp_path / "out").parts() for _, s in part.read()]
        assert [(s.key, s.image, s.objects) for s in before] == [(s.key, s.image, s.objects) for s in after]
        for sample in after:
            number = sample.target + 1
            assert f"{number} <box:{sample.target}> looks so." in sample.rationale
            assert sample.rationale.endswith(f"Conclusion: Object {number} is the {sample.entity}.")
            assert set(re.findall(r"<box:(\d+)>", sample.rationale)) == {str(i) for i in range(len(sample.objects))}
        assert main(["verify", str(tmp_path / "out")]) == 0
        # Asked once more with other settings of the shards alone, all comes from what is kept.
        num = len(school.bodies)
        assert main([*arguments(composites, tmp_path / "out", settings), "--overwrite"]) == 0
        assert len(school.bodies) == num


def test_a_teacher_who_is_never_right_costs_samples_with_reasons(composites, tmp_path, capsys):
    def act(number, body):
        things, _ = told(question(body))
        return says(answer("I would rather not.")) if len(things) > 2 else says(answer(rationale(question(body))))

    with ScriptedServer(act) as server:
        assert main(arguments(composites, tmp_path / "out", teacher(tmp_path, server.url))) == 0
    counts = ShardFolder(composites).manifest.counts["num_objects"]
    assert f"{counts['2']} rationales" in (shown := capsys.readouterr().out)
    assert f"{NUM - counts['2']} set aside (parts {NUM - counts['2']})" in shown
    lines = [json.loads(line) for line in (tmp_path / "out/set_aside.jsonl").read_text().splitlines()]
    assert len(lines) == NUM - counts["2"]
    assert all(len(line["reasons"]) == 3 for line in lines)  # tries
    assert all("Plan is missing" in line["reasons"][0] for line in lines)


def test_a_teacher_who_goes_ends_it_with_one_message(composites, tmp_path, capsys):
    with School() as school:
        assert main(arguments(composites, tmp_path / "whole", teacher(tmp_path, school.url))) == 0
    with School() as school:
        plain = school.script
        school.script = lambda number, body: school.vanish() or cuts if number == 13 else plain(number, body)
        settings = teacher(tmp_path, school.url, retries=1)
        capsys.readouterr()
        assert main(arguments(composites, tmp_path / "cut", settings)) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "no answer" in error
        assert "run it again" in error
        assert not (tmp_path / "cut/manifest.json").exists()
    # It comes back at the same address, as a server that is started again.
    with School() as school:
        kept = sum(len(p.read_text().splitlines()) for p in (tmp_path / "cut/asked").glob("*.jsonl"))
        path = Path(settings)
        path.write_text(re.sub(r"http://[^\s]+", school.url, path.read_text()))
        assert main(arguments(composites, tmp_path / "cut", settings)) == 0
        assert kept >= 9
        assert len(school.bodies) == NUM - kept
    whole, cut = (ShardFolder(tmp_path / name).manifest for name in ("whole", "cut"))
    assert whole.shards == cut.shards


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher": 5}, "rationalize.teacher: 5 should be a mapping"),
        ({"teacher": {"class_path": 3}}, "rationalize.teacher.class_path: 3 names no class"),
        (
            {"teacher": {"class_path": "kvg.errors.DataError"}},
            "name a subclass of kvg.inference.request.Client",
        ),
        ({"max_attempts": "2"}, "rationalize.max_attempts: '2' should be a whole number; write 2 without quotes"),
        ({"rules": [1]}, "rationalize.rules: [1] should be a mapping"),
        ({"rules": {"min_iou": "x"}}, "rationalize.rules.min_iou: 'x' should be a number"),
        ({"codec": {"class_path": "kvg.types.Sample"}}, "rationalize.codec"),
        ({"min_facts": 2}, "rationalize.min_facts: is a setting of the writer cards"),
        ({"strange": 2}, "rationalize.strange: is unknown"),
    ],
)
def test_a_damaged_file_of_a_teacher_is_told_with_its_name(composites, tmp_path, capsys, settings, message):
    path = teacher(tmp_path, "http://127.0.0.1:9")
    Path(path).write_text(yaml.safe_dump({**yaml.safe_load(Path(path).read_text()), **settings}))
    assert main(arguments(composites, tmp_path / "out", path)) == 2
    err = capsys.readouterr().err
    assert message in err
    assert f"(in {path})" in err
    assert not (tmp_path / "out").exists()
