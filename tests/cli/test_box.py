"""`kvg-data box` as a user runs it, against a server that answers as grounding models do: rightly, wrongly, or not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from kvg.catalogue.boxing import boxed_entries
from kvg.catalogue.cutting import overlap
from kvg.cli.kvg_data import main
from kvg.composites.catalogue_tiles import CatalogueTiles
from kvg.pipeline.settings.project import load_project
from tests.catalogue.conftest import encoded
from tests.cli.grounding import GroundingServer, photograph, project, second, where

STRANGE = '<script>alert(1)</script> "x" & it\'s \U0001f989'


@pytest.fixture
def server():
    found = GroundingServer()
    yield found
    found.close()


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "out/boxes.jsonl").read_text().splitlines()]


NAMES = {"Right": 3, STRANGE: 1, "Late": 1, "Garbled": 2, "Whole": 1, "Thin": 1, "Torn": 2, "Refused": 1}


def test_boxes_are_found_checked_twice_and_accounted_for(tmp_path, server, capsys):
    path = project(tmp_path, server, NAMES, **second(server))
    assert main(["box", str(path)]) == 0
    said = capsys.readouterr().out
    assert "12 pictures asked about, 5 boxed" in said
    assert "7 without a box (border 1, disagreement 2, thin 1, unanswered 1, unreadable 2)" in said
    found = {(line["entity"].split()[0], line["rule"]) for line in lines(tmp_path)}
    boxless = {("Late", "")} | {(name, "") for name in ("Right", STRANGE.split()[0].replace("/", "\N{DIVISION SLASH}"))}
    assert found == boxless | {
        ("Whole", "border"), ("Torn", "disagreement"), ("Thin", "thin"), ("Refused", "unanswered"),
        ("Garbled", "unreadable"),
    }  # fmt: skip
    for line in lines(tmp_path):
        assert line["box_from"] == "qwen2-vl"
        truth = where(Image.open(tmp_path / "in" / line["ref"]))
        if line["box_px"]:
            assert overlap(tuple(line["box_px"]), truth) > 0.93
            assert line["iou"] > 0.93  # one model spoke of a grid, the other of pixels
        elif line["rule"] == "disagreement":
            assert line["iou"] == pytest.approx(1 / 3, abs=0.1)  # half of it is shared, and one and a half are covered
            assert line["reason"].startswith("two boxes overlap by 0.")
    assert server.calls["qwen2.5-vl"] == 7 + 1  # what the first has not boxed is not judged, and Late asked for twice
    assert len(CatalogueTiles(path).entities("bird")) == 3  # composites are made of what has a box
    assert json.loads((tmp_path / "out/box.json").read_text())["refused"]["unreadable"] == 2


def test_nothing_is_asked_twice_also_where_rules_change(tmp_path, server):
    path = project(tmp_path, server, {"Right": 3, "Garbled": 1})
    assert main(["box", str(path)]) == 0
    before, calls = (tmp_path / "out/boxes.jsonl").read_bytes(), server.calls["qwen2-vl"]
    assert calls == 3 + 2  # what is no answer is asked for twice
    assert main(["box", str(path)]) == 0
    assert (tmp_path / "out/boxes.jsonl").read_bytes() == before
    config = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**config, "box": {**config["box"], "min_area": 0.9, "max_attempts": 1}}))
    assert main(["box", str(path)]) == 0
    assert [line["rule"] for line in lines(tmp_path)] == ["unreadable", "small", "small", "small"]
    path.write_text(yaml.safe_dump(config))
    (tmp_path / "in/bird/Right/new.jpg").write_bytes(encoded(photograph(99)))
    assert main(["scan", str(path)]) == 0
    assert main(["box", str(path)]) == 0
    assert len([line for line in lines(tmp_path) if line["box_px"]]) == 4
    assert server.calls["qwen2-vl"] == calls + 1


def test_two_answers_of_one_model_have_to_agree(tmp_path, server):
    path = project(tmp_path, server, {"Right": 2, "Late": 1}, samples=2, max_attempts=1)
    assert main(["box", str(path)]) == 0
    assert [(line["rule"], line["iou"]) for line in lines(tmp_path)] == [("unreadable", None), ("", 1.0), ("", 1.0)]
    assert server.calls == {"qwen2-vl": 6}


def test_pictures_that_changed_or_went_are_told_and_asked_about_when_they_are_back(tmp_path, server, capsys):
    path = project(tmp_path, server, {"Right": 3})
    one, two = (tmp_path / f"in/bird/Right/{n}.jpg" for n in (0, 1))
    kept = two.read_bytes()
    one.write_bytes(encoded(photograph(50)))
    two.unlink()
    assert main(["box", str(path)]) == 0
    assert [line["rule"] for line in lines(tmp_path)] == ["picture", "picture", ""]
    assert "has changed since the scan; scan again" in lines(tmp_path)[0]["reason"]
    assert "cannot be opened" in lines(tmp_path)[1]["reason"]
    two.write_bytes(kept)
    assert main(["box", str(path)]) == 0
    assert [line["rule"] for line in lines(tmp_path)] == ["picture", "", ""]
    capsys.readouterr()
    two.unlink()
    (tmp_path / "out/review.html").unlink()
    assert main(["box", str(path), "--review-only"]) == 0
    assert "1 pictures cannot be opened any more" in capsys.readouterr().out
    assert server.calls == {"qwen2-vl": 2}


def test_without_anything_to_ask_the_page_is_still_written(tmp_path, capsys):
    cut = Image.new("RGBA", (60, 40), (0, 0, 0, 0))
    cut.paste((200, 0, 0, 255), (10, 10, 30, 30))
    (tmp_path / "in/bird/Wren").mkdir(parents=True)
    (tmp_path / "in/bird/Wren/cut.png").write_bytes(encoded(cut, "PNG"))
    path = project(tmp_path, None, {})
    assert main(["box", str(path)]) == 0
    said = capsys.readouterr().out
    assert "every picture has a box: there is nothing to ask about" in said
    assert f"1 boxes of all kinds to review, 0 of them ticked as bad: open {tmp_path / 'out/review.html'}" in said
    assert "Wren" in (tmp_path / "out/review.html").read_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"client": None}, "box.client: is missing, and 1 pictures have no box"),
        ({"client": {"class_path": "kvg.Nothing"}}, "box.client.class_path: 'kvg.Nothing' cannot be imported"),
        ({"client": {"class_path": "pathlib.Path"}}, "box.client: is not a client"),
        ({"codec": {"class_path": "pathlib.Path"}}, "box.codec: is not a box codec"),
        ({"second": {"class_path": "x"}}, "box.second.class_path: 'x' cannot be imported"),
        ({"max_aspect": 0}, "box.max_aspect: 0 allows"),
    ],
)
def test_settings_that_cannot_work_stop_before_anything_is_asked(tmp_path, server, capsys, settings, message):
    path = project(tmp_path, server, {"Right": 1}, **settings)
    assert main(["box", str(path)]) == 2
    assert message in capsys.readouterr().err
    assert not server.calls
    assert not (tmp_path / "out/boxes.jsonl").exists()


def test_ticked_boxes_are_left_out_and_stay_ticked_on_the_next_page(tmp_path, server, capsys):
    path = project(tmp_path, server, {"Right": 2, STRANGE: 2})
    assert main(["box", str(path)]) == 0
    page = (tmp_path / "out/review.html").read_text()
    assert "<script>alert" not in page
    assert page.count("<script") == 2  # data and code of the page
    shown = json.loads(re.search(r'<script type="application/json" id="page">(.*?)</script>', page)[1])
    assert shown["file"] == "bad_boxes.jsonl"
    strange = next(box for box in shown["boxes"] if "alert" in box["ref"])
    told = {**{name: strange[name] for name in ("source", "ref", "box_px")}, "bad": True, "saved": 1_700_000_000_000}
    # As a browser writes it: letters as they are, and whole numbers without a point.
    text = re.sub(r"\.0(?=[,\]])", "", json.dumps(told, ensure_ascii=False))
    (tmp_path / "out/bad_boxes.jsonl").write_text(text + "\n", "utf-8")
    left = [entry.ref for entry in boxed_entries(load_project(path))]
    assert len(left) == 3
    assert strange["ref"] not in left
    capsys.readouterr()
    assert main(["box", str(path)]) == 0
    assert "4 boxes of models to review, 1 of them ticked as bad" in capsys.readouterr().out
    assert (tmp_path / "out/review.html").read_text().count('role="checkbox" aria-checked="true"') == 1


CHECKED = """
import sys
from kvg.cli.kvg_data import main
code = main(sys.argv[1:])
assert "torch" not in sys.modules, "a command that asks a server has loaded torch"
sys.exit(code)
"""


def test_a_command_that_asks_a_server_starts_without_torch(tmp_path, server):
    path = project(tmp_path, server, {"Right": 1})
    done = subprocess.run([sys.executable, "-c", CHECKED, "box", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_model_of_this_machine_boxes_what_is_described(tmp_path, scenes):
    """The lab's base model, whose pictures are sent as they are."""
    (tmp_path / "in").mkdir()
    rows, truths = [], {}
    for number, sample in enumerate(scenes(12, k_weights={2: 1.0})):
        name = f"{number}.png"
        (tmp_path / "in" / name).write_bytes(sample.image)
        thing = sample.objects[sample.target]
        rows.append({"path": name, "entity": thing.description, "category": sample.category})
        truths[name] = thing.box_px
    (tmp_path / "in/list.json").write_text(json.dumps(rows))
    source = {"class_path": "kvg.catalogue.tables.Table", "init_args": {"path": str(tmp_path / "in/list.json")}}
    model = {
        "class_path": "kvg.backbones.backbone.Backbone",
        "init_args": {"checkpoint": "lab", "dtype": "float32"},
    }
    local = {"backbone": model, "temperature": 0.0, "max_tokens": 24, "batch_size": 4}
    box = {"client": {"class_path": "kvg.inference.local.LocalClient", "init_args": local}, "max_pixels": 19_600}
    path = tmp_path / "project.yaml"
    splits = {"val": 0, "test": 0, "copy_distance": 0}
    config = {"out": str(tmp_path / "out"), "sources": {"lab": source}, "splits": splits, "box": box}
    path.write_text(yaml.safe_dump(config))
    assert main(["scan", str(path)]) == 0
    assert main(["box", str(path)]) == 0
    found = lines(tmp_path)
    right = [line["ref"] for line in found if line["box_px"] and overlap(truths[line["ref"]], line["box_px"]) > 0.5]
    assert len(found) >= 10
    assert len(right) >= len(found) - 2  # it boxes 98% of what is described
    assert {line["box_from"] for line in found} == {"lab"}
