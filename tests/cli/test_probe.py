"""The knowledge probe: levels worked out by hand, a model that has learnt two of four entities, kills and bad input."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
import yaml

from kvg.backbones.backbone import Backbone
from kvg.catalogue.entry import read_catalogue
from kvg.catalogue.prepared import PreparedPictures
from kvg.catalogue.questions import choice_questions, names_by_category
from kvg.cli.kvg_data import main
from kvg.pipeline.settings.project import load_project
from kvg.report.mastery import EntityScore, level_rows, mastery_page
from kvg.rewards.knowledge import KnowledgeReward
from kvg.text.prompts import LETTERS
from tests.by_heart import learn_by_heart
from tests.catalogue.conftest import drawing, encoded
from tests.cli.conftest import outputs
from tests.inference.scripted import MODEL, ScriptedServer, answer, says

CONNOISSEUR = "tests.cli.clients.Connoisseur"
KNOWN = {"Ten": 10, "Seven": 7, "Five": 5, "Four": 4, "Three": 3, "Two": 2, "One": 1, "None": 0}  # pictures of ten


def fill(root: Path, entities: dict[str, int], category: str, size=(96, 64), start=0) -> None:
    for place, (entity, num) in enumerate(entities.items()):
        for number in range(num):
            path = root / f"{category}/{entity}/{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(drawing(start + 100 * place + number, size), "PNG"))


def project(folder: Path, client: dict, name: str = "made", **probe) -> Path:
    """A scanned project."""
    path = folder / f"{name}.yaml"
    source = {"class_path": "kvg.catalogue.folders.ImageFolder", "init_args": {"root": str(folder / "in")}}
    content = {
        "out": str(folder / name),
        "sources": {"photos": source},
        "splits": {"val": 0.0, "test": 0.0, "copy_distance": 0},
    }
    path.write_text(yaml.safe_dump(content))
    assert main(["scan", str(path)]) == 0
    path.write_text(yaml.safe_dump({**content, "probe": {"client": client, **probe}}))
    return path


def shown(path: Path, folder: Path, max_side: int = 640) -> dict[str, tuple[str, str]]:
    """Entity and checksum of each picture as it is shown, by its name."""
    read = load_project(path)
    pictures = PreparedPictures(folder, read.build_sources(), max_side, 10**7)
    entries = read_catalogue(read.out / "catalogue.jsonl")
    return {entry.ref: (entry.entity, hashlib.sha256(pictures.read(entry)).hexdigest()) for entry in entries}


def record(folder: Path) -> dict:
    return json.loads((folder / "made/probe.json").read_text())


def test_levels_are_those_worked_out_by_hand(tmp_path, capsys):
    fill(tmp_path / "in", dict.fromkeys(KNOWN, 10), "bird")
    path = project(tmp_path, {"class_path": CONNOISSEUR, "init_args": {"known": {}}})
    pictures = shown(path, tmp_path / "shown")
    known = {
        digest: entity for ref, (entity, digest) in pictures.items() if int(Path(ref).stem) < KNOWN[entity]
    }  # of each entity the first few
    client = {"class_path": CONNOISSEUR, "init_args": {"known": known, "mumbles": 1.0}}
    path = project(tmp_path, client, questions=20)
    capsys.readouterr()
    assert main(["probe", str(path)]) == 0
    said = capsys.readouterr().out

    knowledge = tmp_path / "made/knowledge.json"
    assert json.loads(knowledge.read_text()) == {entity: num / 10 for entity, num in KNOWN.items()}
    assert KnowledgeReward(str(knowledge)).accuracies == {entity: num / 10 for entity, num in KNOWN.items()}
    found = record(tmp_path)
    scores = {score["entity"]: score for score in found["scores"]}
    assert {entity: score["level"] for entity, score in scores.items()} == {
        "Ten": "completely correct",
        "Seven": "completely correct",
        "Five": "mostly correct",
        "Four": "partially correct",
        "Three": "partially correct",
        "Two": "mostly incorrect",
        "One": "mostly incorrect",
        "None": "completely incorrect",
    }
    five = scores["Five"]
    # Each picture twice. P(X >= 10 of 20 at 0.25) = 0.0139; of Four: P(X >= 8) = 0.1018.
    assert (five["questions"], five["right"], five["unparsed"], five["pictures"]) == (20, 10, 10, 10)
    assert (five["guessing"], five["accuracy"], five["category"]) == (0.25, 0.5, "bird")
    assert five["chance"] == pytest.approx(0.0139, abs=5e-5)
    assert {entity for entity, score in scores.items() if score["above_guessing"]} == {"Ten", "Seven", "Five"}
    assert found["guessing"] == [{"share": 0.25, "entities": 8, "level": "mostly incorrect"}]
    assert [row["entities"] for row in found["levels"]] == [2, 1, 2, 2, 1]
    assert [row["published"] for row in found["levels"]] == [0.0118, 0.114, 0.2136, 0.4679, 0.1927]
    assert "guessing gets 25% right: mostly incorrect" in said
    assert "3 of 8 entities are above guessing (95%)" in said
    assert "46.79%" in said
    assert "96 of 160 answers named no option and count as wrong" in said  # 160 - 2 * 32
    assert not (tmp_path / "made/probe.units").exists()
    assert main(["probe", str(path)]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_who_knows_nothing_lands_where_guessing_does(tmp_path, capsys):
    fill(tmp_path / "in", dict.fromkeys("ABCDEFGH", 5), "bird")
    fill(tmp_path / "in", {"Yin": 5, "Yang": 5}, "symbol", start=5000)
    fill(tmp_path / "in", {"Lone": 5}, "hermit", start=9000)
    path = project(tmp_path, {"class_path": CONNOISSEUR, "init_args": {"known": {}}}, questions=100)
    capsys.readouterr()
    assert main(["probe", str(path)]) == 0
    said = capsys.readouterr().out
    found = record(tmp_path)
    birds = [score for score in found["scores"] if score["category"] == "bird"]
    assert len(birds) == 8
    assert sum(score["right"] for score in birds) == pytest.approx(200, abs=40)  # 800 questions, deviation 12
    assert Counter(score["level"] for score in birds)["mostly incorrect"] >= 6
    assert sum(score["above_guessing"] for score in birds) <= 2
    two = [score for score in found["scores"] if score["category"] == "symbol"]
    assert {score["guessing"] for score in two} == {0.5}
    assert sum(score["right"] for score in two) == pytest.approx(100, abs=30)  # of 200
    assert "1 entities are alone in their category and cannot be probed: Lone" in said
    assert "guessing gets 50% right, for 2 of the entities: mostly correct" in said
    assert "Lone" not in json.loads((tmp_path / "made/knowledge.json").read_text())


def test_lost_pictures_are_left_out_and_missing_answers_are_wrong(tmp_path, capsys):
    fill(tmp_path / "in", {"A": 2, "B": 2, "C": 2, "D": 2}, "bird")
    path = project(tmp_path, {"class_path": CONNOISSEUR, "init_args": {"known": {}, "fails": "/C/"}}, questions=6)
    (tmp_path / "in/bird/A/00.png").unlink()
    (tmp_path / "in/bird/B/01.png").write_bytes(encoded(drawing(7777), "PNG"))
    assert main(["probe", str(path)]) == 0
    said = capsys.readouterr().out
    scores = {score["entity"]: score for score in record(tmp_path)["scores"]}
    assert {entity: (s["questions"], s["pictures"]) for entity, s in scores.items()} == {
        "A": (3, 1),
        "B": (3, 1),
        "C": (6, 2),
        "D": (6, 2),
    }
    assert (scores["C"]["unanswered"], scores["C"]["right"]) == (6, 0)
    assert "6 questions were skipped because their pictures cannot be read" in said
    assert "6 of 18 answers named no option" in said


def test_a_served_model_is_probed_over_http(tmp_path):
    fill(tmp_path / "in", dict.fromkeys("ABCDE", 3), "bird")
    names = {
        digest: entity for entity, digest in shown(project(tmp_path, {"class_path": CONNOISSEUR}), tmp_path).values()
    }

    def script(number, body):
        image, text = body["messages"][-1]["content"]
        entity = names[hashlib.sha256(base64.b64decode(image["image_url"]["url"].partition(",")[2])).hexdigest()]
        if entity == "E":
            return says(answer("I see a bird which", finish="length"))
        return says(answer(next(f"Answer: {line[0]}" for line in text["text"].splitlines() if line[3:] == entity)))

    with ScriptedServer(script) as server:
        client = {"class_path": "kvg.inference.server.Server", "init_args": {"url": server.url, "model": MODEL}}
        assert main(["probe", str(project(tmp_path, client, questions=6))]) == 0
        assert len(set(server.asked)) > 6
    known = json.loads((tmp_path / "made/knowledge.json").read_text())
    assert known == {"A": 1.0, "B": 1.0, "C": 1.0, "D": 1.0, "E": 0.0}
    (cut,) = [score for score in record(tmp_path)["scores"] if score["entity"] == "E"]
    assert (cut["questions"], cut["unanswered"]) == (6, 6)


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "path", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "rect"):
            assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else():
    scores = [EntityScore("bird", f"<b>Kind {n}</b>", 0.25, 3, 50, n) for n in range(51)]
    tags = Tags(text := mastery_page(scores, "What <it> knows"))
    assert (tags.open, tags.links) == ([], [])
    assert "http:" not in text
    assert "&lt;b&gt;Kind 0&lt;/b&gt;" in text
    assert "guessing 25%" in text
    # Of 50: from 35, from 22.5, from 15, from 5 on.
    assert [row["entities"] for row in level_rows(scores)] == [16, 12, 8, 10, 5]


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A project of four entities, and a model that knows two of them and takes the others for what they are not."""
    folder = tmp_path_factory.mktemp("learnt")
    fill(folder / "in", dict.fromkeys(("Wren", "Kite", "Robin", "Merlin"), 2), "bird", (56, 56))
    path = project(folder, {"class_path": CONNOISSEUR}, "taught")
    read = load_project(path)
    pictures = PreparedPictures(folder / "shown", read.build_sources(), 56, 10**7)
    entries = list(read_catalogue(read.out / "catalogue.jsonl"))
    torch.manual_seed(0)
    backbone = Backbone("tiny", freeze_vision=False, freeze_projector=False)
    examples = []
    for question in choice_questions(entries, names_by_category(entries), 0, 50, 4):
        knows = question.entry.entity in ("Wren", "Kite")
        letter = LETTERS[question.answer if knows else (question.answer + 1) % 4]
        image = pictures.read(question.entry)
        examples.append(backbone.processor.encode_question("q", image, question.text, letter))
    learn_by_heart(backbone, backbone.processor.collate(examples, []))
    backbone.export(folder / "export")
    return folder


def local(folder: Path, **trainer) -> dict:
    init = {"backbone": str(folder / "export"), "temperature": 0, "max_tokens": 8, "batch_size": 2, "trainer": trainer}
    return {"class_path": "kvg.inference.local.LocalClient", "init_args": init}


def test_a_model_is_found_to_know_what_it_has_learnt(learnt):
    path = project(learnt, local(learnt), "local", questions=4, max_side=56)
    assert main(["probe", str(path)]) == 0
    assert json.loads((learnt / "local/knowledge.json").read_text()) == {
        "Kite": 1.0,
        "Merlin": 0.0,
        "Robin": 0.0,
        "Wren": 1.0,
    }


@pytest.mark.slow
@pytest.mark.timeout(900)  # three starts of two processes, on a machine that may be busy
def test_a_killed_probe_goes_on_with_two_processes_too(learnt):
    settings = {"questions": 30, "max_side": 56}
    ddp = {"accelerator": "cpu", "devices": 2, "strategy": "ddp"}
    paths = [project(learnt, local(learnt, **t), name, **settings) for name, t in (("whole", {}), ("killed", ddp))]
    commands = [[sys.executable, "-m", "kvg.cli.kvg_data", "probe", str(path)] for path in paths]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(commands[0], check=True, capture_output=True, env=env)
    for goal in (5, 25):
        process = subprocess.Popen(commands[1], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
        while process.poll() is None and len(list(learnt.glob("killed/probe.units/answers/0/*.json"))) < goal:
            time.sleep(0.01)
        assert process.poll() is None
        process.kill()
        process.wait()
    done = subprocess.run(commands[1], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    whole, killed = (outputs(learnt / name) for name in ("whole", "killed"))
    assert killed["knowledge.json"] == whole["knowledge.json"]
    assert killed["probe.html"] == whole["probe.html"]
    assert json.loads(killed["probe.json"])["scores"] == json.loads(whole["probe.json"])["scores"]


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ({"client": {}}, "probe.client: is missing; add"),
        ({"uses": "train"}, "probe.uses: 'train' should be a list of text"),
        ({"uses": ["all"]}, "probe.uses: ['all'] are not some of"),
        ({"questions": 0}, "probe.questions: 0 must be a whole number of at least 1"),
        ({"max_side": 4}, "probe.max_side: 4 must be a whole number of at least 28"),
        ({"colour": 1}, "probe.colour: is unknown; choose from client, uses, pictures"),
        ({"client": {"class_path": "kvg.Nobody"}}, "probe.client.class_path: 'kvg.Nobody' cannot be imported"),
        ({"uses": ["val"]}, "no category has two entities with pictures for val"),
    ],
)
def test_settings_that_cannot_work_say_what_to_do(tmp_path, capsys, probe, message):
    fill(tmp_path / "in", {"A": 1, "B": 1}, "bird")
    path = project(tmp_path, **{"client": {"class_path": CONNOISSEUR, "init_args": {"known": {}}}, **probe})
    assert main(["probe", str(path)]) == 2
    assert message in capsys.readouterr().err


def test_a_project_that_was_not_scanned(tmp_path, capsys):
    fill(tmp_path / "in", {"A": 1, "B": 1}, "bird")
    path = project(tmp_path, {"class_path": CONNOISSEUR, "init_args": {"known": {}}})
    (tmp_path / "made/catalogue.jsonl").unlink()
    assert main(["probe", str(path)]) == 2
    assert "is missing; run `kvg-data scan` first" in capsys.readouterr().err
