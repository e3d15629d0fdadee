"""A catalogue to Label Studio and its corrections back; predictions to COCO and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from kvg.catalogue.boxing import boxed_entries
from kvg.catalogue.project import CatalogueProject, read_project
from kvg.cli.kvg_data import main
from kvg.evaluation.records.prediction import read_predictions
from kvg.shards.writer import ShardWriter


def convert(source, out, form, *more):
    return main(["convert", "--in", str(source), "--out", str(out), "--to", form, *map(str, more)])


@pytest.fixture
def project(tmp_path):
    """Six scanned pictures: two objects on one, one stored rotated, one without a box; boxes as stored pixels."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rows = []
    exif = Image.Exif()
    exif[0x0112] = 6
    for number, name in enumerate(("a", "b", "c", "d", "e")):
        image = Image.effect_noise((120, 90), 60 + number).convert("RGB")
        image.paste((40 * number, 200, 10), (20, 10, 80, 60))
        image.save(folder / f"{name}.jpg", quality=95, **({"exif": exif} if name == "b" else {}))
        row = {"path": f"{name}.jpg", "entity": f"bird {name}", "category": "bird", "licence": "CC0"}
        rows.append(row if name == "e" else row | {"box": [20, 10, 80, 60] if name != "d" else [5, 5, 50, 70]})
    rows.append({**rows[3], "entity": "bird f", "box": [70, 10, 110, 80]})  # a second object on d.jpg
    (tmp_path / "list.json").write_text(json.dumps(rows))
    source = {"class_path": "kvg.catalogue.tables.Table"}
    source["init_args"] = {"path": str(tmp_path / "list.json"), "root": str(folder), "boxes_of": "raw"}
    path = tmp_path / "project.yaml"
    path.write_text(yaml.safe_dump({"out": str(tmp_path / "out"), "sources": {"mine": source}}))
    assert main(["scan", str(path)]) == 0
    return path


def entries(project):
    return {e.entity: e for e in boxed_entries(read_project(project, CatalogueProject))}


def as_export(tasks: Path, change) -> Path:
    """Label Studio's JSON export: tasks with ids, annotations with times; ``change`` is what people did."""
    value = json.loads(tasks.read_text("utf-8"))
    for number, task in enumerate(value, 1):
        task["id"] = number
        for annotation in task.setdefault("annotations", []):
            annotation |= {"id": number, "was_cancelled": False, "ground_truth": False}
            annotation["updated_at"] = "2026-01-01T10:00:00.000000Z"
    by_entity = {task["data"]["kvg"]["catalogue"]["entity"]: task for task in value}
    change(by_entity)
    path = tasks.with_name("project-1-at-2026.json")
    path.write_text(json.dumps(value), "utf-8")
    return path


def region(task, box, label):
    """A box that somebody draws, in percent of the picture as shown."""
    width, height = Image.open(task).size
    x1, y1, x2, y2 = box
    value = {"x": 100 * x1 / width, "y": 100 * y1 / height, "width": 100 * (x2 - x1) / width}
    value |= {"height": 100 * (y2 - y1) / height, "rotation": 0, "rectanglelabels": [label]}
    sizes = {"original_width": width, "original_height": height, "image_rotation": 0}
    return {"id": "drawn", "type": "rectanglelabels", "from_name": "label", "to_name": "image", "value": value, **sizes}


def test_corrections_come_back_to_the_catalogue(project, tmp_path, capsys, caplog):
    before = entries(project)
    assert before["bird b"].box_px == (30, 20, 80, 80)  # as viewers show it: 90x120
    assert before["bird d"].cut_px is not None  # a picture of its own, cut around its object
    assert convert(project, tmp_path / "ls", "label-studio", "--from", "catalogue") == 0
    images = tmp_path / "ls" / "images"

    def change(tasks):
        tasks["bird b"]["annotations"][0]["result"] = [region(images / "b.png", (31, 22, 79.5, 77), "bird b")]
        tasks["bird a"]["annotations"][0]["result"] = []  # its object cannot be seen: leave it out
        new = {"result": [region(images / "e.jpg", (20, 10, 80, 60), "bird e")], "updated_at": "2026-01-02"}
        tasks["bird e"]["annotations"] = [new]  # it had no box
        old = tasks["bird d"]["annotations"][0]
        name = tasks["bird d"]["data"]["image"].rpartition("/")[2]
        later = {"result": [region(images / name, (1, 2, 30, 40), "bird d")], "updated_at": "2026-01-01T11:00:00Z"}
        tasks["bird d"]["annotations"] = [later, old]
        tasks["bird f"]["annotations"][0]["was_cancelled"] = True
        tasks["bird c"]["annotations"][0]["result"][0]["value"]["rectanglelabels"] = ["bird x"]  # renamed

    export = as_export(tmp_path / "ls" / "tasks.json", change)
    out = tmp_path / "out" / "corrected_boxes.jsonl"
    assert convert(export, out, "corrections", "--from", "label-studio") == 0
    assert "4 samples" in capsys.readouterr().out
    assert "was skipped by the annotator" in caplog.text
    assert "(bird x); give one box of 'bird c'" in caplog.text
    after = entries(project)
    assert set(before) - set(after) == {"bird a"}
    changed = {name: e.box_px for name, e in after.items() if e != before[name]}
    assert changed == {"bird b": (31, 22, 79.5, 77), "bird e": (20, 10, 80, 60), "bird d": (1, 2, 30, 40)}
    assert {after[name].box_from for name in changed} == {"corrected"}
    # Nothing is corrected by an export that nobody touched, and a file is not replaced by chance.
    again = as_export(tmp_path / "ls" / "tasks.json", lambda tasks: None)
    assert convert(again, out, "corrections", "--from", "label-studio") == 2
    assert convert(again, out, "corrections", "--from", "label-studio", "--overwrite") == 0
    assert not out.read_text()
    assert entries(project) == before


def test_corrections_as_a_listing(project, tmp_path):
    """The listing of an export is a source of its own: the same pictures, boxes and names."""
    assert convert(project, tmp_path / "ls", "label-studio", "--from", "catalogue") == 0
    export = as_export(tmp_path / "ls" / "tasks.json", lambda tasks: None)
    assert convert(export, tmp_path / "list", "listing", "--from", "label-studio") == 0
    source = {"class_path": "kvg.catalogue.tables.Table", "init_args": {"path": str(tmp_path / "list/listing.jsonl")}}
    path = tmp_path / "second.yaml"
    path.write_text(yaml.safe_dump({"out": str(tmp_path / "out2"), "sources": {"corrected": source}}))
    assert main(["scan", str(path)]) == 0
    before, after = entries(project), entries(path)
    assert set(after) == set(before) - {"bird e"}  # it has no annotation
    assert {n: (e.box_px, e.category, e.licence) for n, e in after.items()} == {
        n: (e.box_px, e.category, e.licence) for n, e in before.items() if n != "bird e"
    }


def test_corrections_of_a_changed_picture_are_not_used(project, tmp_path, caplog):
    assert convert(project, tmp_path / "ls", "label-studio", "--from", "catalogue") == 0
    line = {"source": "mine", "ref": "a.jpg", "sha256": "0" * 64, "entity": "bird a", "box_px": [1, 1, 9, 9]}
    (tmp_path / "out" / "corrected_boxes.jsonl").write_text(json.dumps(line) + "\n")
    before = entries(project)
    assert before["bird a"].box_px == (20, 10, 80, 60)
    assert "1 corrected boxes belong to pictures or entities that have changed" in caplog.text
    (tmp_path / "out" / "corrected_boxes.jsonl").write_text('{"source": "mine"}\n')
    assert convert(project, tmp_path / "x", "coco", "--from", "catalogue") == 2


@pytest.fixture
def predictions(tmp_path, scenes):
    """Shards of four scenes, and answers: right, unparsed, without area, and of another picture."""
    samples = scenes(4, sizes=((140, 100),))
    with ShardWriter(tmp_path / "shards", 4) as writer:
        for sample in samples:
            writer.write(sample)
    from kvg.evaluation.records.question import Question
    from kvg.text.box_codec import ImageSize, RelativeCodec

    size, lines = ImageSize(140, 100, 140, 100), []
    for sample, answer in zip(samples, ("(100,200),(505,800)", "no", "(9,9),(9,9)", "(1,2),(3,4)"), strict=True):
        lines.append(Question(sample, "test").line(answer, "direct", RelativeCodec(), size))
    lines[3]["image"] = "another"
    (tmp_path / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return tmp_path / "predictions.jsonl", samples


@pytest.mark.parametrize("form", ["coco", "yolo", "label-studio", "fiftyone"])
def test_predictions_there_and_back(form, predictions, tmp_path, capsys, caplog):
    path, samples = predictions
    more = ["--from", "predictions", "--pictures", tmp_path / "shards"]
    assert convert(path, tmp_path / form, form, *more) == 0
    assert "2 samples in" in capsys.readouterr().out
    assert "has no area" in caplog.text
    assert "is another picture than the one that was asked about" in caplog.text
    if form == "coco":
        (result,) = json.loads((tmp_path / form / "predictions.json").read_text())
        assert result["bbox"] == pytest.approx([14, 20, 56.7, 60])  # 10%, 20% of 140x100; 50.5% and 80%
        assert result["score"] == 1.0
    start = {"coco": "annotations.json", "yolo": "data.yaml", "label-studio": "tasks.json", "fiftyone": "labels.json"}
    source = tmp_path / form / start[form]
    more = ["--category", "lab"] if form == "yolo" else []
    assert convert(source, tmp_path / "back.jsonl", "predictions", "--from", form, *more) == 0
    back = {case.key: case for case in read_predictions(tmp_path / "back.jsonl")}
    case = back[samples[0].key] if form != "yolo" else next(c for c in back.values() if c.box)
    assert case.entity == samples[0].entity
    assert case.box == pytest.approx((100, 200, 505, 800), abs=1e-3)
    if form != "yolo":  # YOLO does not keep the target, so each object is a question
        assert {key: case.box is None for key, case in back.items()} == {samples[0].key: False, samples[1].key: True}
        before = {case.key: case for case in read_predictions(path)}
        assert all(back[key].iou == pytest.approx(before[key].iou, abs=1e-5) for key in back)


def test_predictions_need_their_set(predictions, tmp_path, capsys):
    path, _ = predictions
    assert convert(path, tmp_path / "x", "coco", "--from", "predictions") == 2
    assert "pictures: is the set that predictions belong to" in capsys.readouterr().err


@pytest.fixture
def boxless(tmp_path):
    """A list of two pictures whose true boxes nobody knows, and an answer with a box and one without."""
    from kvg.evaluation.records.question import Question
    from kvg.formats.stores import open_store
    from kvg.text.box_codec import ImageSize, RelativeCodec

    rows = []
    for name in ("a", "b"):
        Image.effect_noise((140, 100), 60).convert("RGB").save(tmp_path / f"{name}.png")
        rows.append({"image": f"{name}.png", "entity": f"bird {name}", "category": "bird"})
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    samples = [sample for part in open_store(str(tmp_path / "pairs.json")).parts() for _, sample in part.read()]
    size = ImageSize(140, 100, 140, 100)
    answers = zip(samples, ("(100,200),(505,800)", "no"), strict=True)
    lines = [Question(sample, "test").line(answer, "direct", RelativeCodec(), size) for sample, answer in answers]
    assert [line["gt_bbox"] for line in lines] == [None, None]
    (tmp_path / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return tmp_path / "predictions.jsonl", tmp_path / "pairs.json", samples


@pytest.mark.parametrize("form", ["coco", "yolo", "label-studio", "fiftyone"])
def test_predictions_without_a_true_box(form, boxless, tmp_path, capsys):
    """Only the predicted box is written, and the question comes back where the format keeps it."""
    path, pairs, samples = boxless
    assert convert(path, tmp_path / form, form, "--from", "predictions", "--pictures", pairs) == 0
    assert "2 samples in" in capsys.readouterr().out
    key, box = samples[0].key, (14, 20, 70.7, 80)  # 10%, 20%, 50.5% and 80% of 140x100
    if form == "coco":
        (result,) = json.loads((tmp_path / form / "predictions.json").read_text())
        assert result["bbox"] == pytest.approx([14, 20, 56.7, 60])
        content = json.loads((tmp_path / form / "annotations.json").read_text())
        assert (len(content["images"]), content["annotations"]) == (2, [])
    if form == "yolo":
        cells = (tmp_path / form / "predictions" / f"{key}.txt").read_text().split()
        assert list(map(float, cells)) == pytest.approx([0, 42.35 / 140, 0.5, 56.7 / 140, 0.6, 1])
        assert [file.read_text() for file in (tmp_path / form / "labels").iterdir()] == ["", ""]
        return
    start = {"coco": "annotations.json", "label-studio": "tasks.json", "fiftyone": "labels.json"}
    back = tmp_path / "back.jsonl"
    assert convert(tmp_path / form / start[form], back, "predictions", "--from", form) == 0
    cases = {case.key: case for case in read_predictions(back)}
    # A task of Label Studio with neither annotation nor prediction is one that nobody has annotated yet.
    assert set(cases) == {key} if form == "label-studio" else {sample.key for sample in samples}
    case = cases[key]
    assert (case.entity, case.category, case.has_truth) == ("bird a", "bird", False)
    pixels = [value * side / 1000 for value, side in zip(case.box, (140, 100) * 2, strict=True)]
    assert pixels == pytest.approx(box, abs=1e-3)
    # Without a true box there is nothing to train on.
    assert convert(tmp_path / form / start[form], tmp_path / "shards", "shards", "--from", form) == 2


def test_a_listing_of_pictures_without_a_box(boxless, tmp_path):
    path, pairs, _ = boxless
    assert convert(path, tmp_path / "list", "listing", "--from", "predictions", "--pictures", pairs) == 0
    lines = [json.loads(line) for line in (tmp_path / "list" / "listing.jsonl").read_text().splitlines()]
    assert [(line["entity"], line["category"], "box" in line) for line in lines] == [
        ("bird a", "bird", False),
        ("bird b", "bird", False),
    ]


@pytest.mark.parametrize("model", ["paligemma", "florence2", "qwen2.5-vl", "qwen3-vl"])
def test_lines_to_train_on_need_a_true_box(model, boxless, tmp_path, caplog):
    path, pairs, _ = boxless
    assert convert(path, tmp_path / "x", f"jsonl-{model}", "--from", "predictions", "--pictures", pairs) == 2
    assert "boxes: has no true box, which this format needs" in caplog.text
    assert "label-studio" in caplog.text
