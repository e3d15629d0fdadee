"""`kvg-data convert`: there and back again, and what has no place is said."""

from __future__ import annotations

import json
from typing import get_args

import pyarrow.parquet as pq
import pytest
from PIL import Image

from kvg import box_forms
from kvg.cli.kvg_data import main
from kvg.cli.reading_options import BOX_UNITS, BOXES_OF
from kvg.formats.stores import open_store


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Composites of the lab with rationales."""
    folder = tmp_path_factory.mktemp("lab")
    out = str(folder / "plain")
    assert main(["compose", "--config", "configs/lab/train.yaml", "--out", out, "--num", "12", "--seed", "5"]) == 0
    assert main(["rationalize", "--in", out, "--out", str(folder / "told")]) == 0
    return folder / "told"


def samples(path):
    return [sample for part in open_store(path).parts() for _, sample in part.read(None)]


def convert(source, out, form, *more):
    return main(["convert", "--in", str(source), "--out", str(out), "--to", form, *more])


FORMS = {"sharegpt": "cot-sft-bird.json", "grpo": "grpo-bird.parquet", "verl": "v.parquet", "kvg-bench": "b.parquet"}


@pytest.mark.parametrize("form", FORMS)
def test_a_published_form_comes_back_the_same(lab, tmp_path, capsys, form):
    """Form to shards to form: every question, answer and picture, to the last byte."""
    first, second = tmp_path / "1" / FORMS[form], tmp_path / "2" / FORMS[form]
    first.parent.mkdir()
    second.parent.mkdir()
    assert convert(lab, first, form) == 0
    assert f"{form} cannot store" in capsys.readouterr().out
    assert convert(first, tmp_path / "shards", "shards") == 0
    assert convert(tmp_path / "shards", second, form) == 0
    if form == "sharegpt":
        one, two = (json.loads(path.read_text("utf-8")) for path in (first, second))
        assert [r["messages"] for r in one] == [r["messages"] for r in two]
        pictures = [[(p.parent / r["images"][0]).read_bytes() for r in rs] for p, rs in ((first, one), (second, two))]
        assert pictures[0] == pictures[1]
        assert all("<think>Plan: the" in r["messages"][1]["content"] for r in one)
    else:
        one, two = (pq.read_table(path).to_pylist() for path in (first, second))
        for row in (*one, *two):  # keys of samples are made from the row's number where the form holds none
            row.pop("question_id", None)
            row.pop("extra_info", None)
        assert one == two
    assert len(one) == 12


@pytest.mark.parametrize("form", FORMS)
def test_boxes_stay_within_half_a_step_of_the_grid(lab, tmp_path, form):
    assert convert(lab, tmp_path / FORMS[form], form) == 0
    before, after = samples(lab), samples(tmp_path / FORMS[form])
    for one, other in zip(before, after, strict=True):
        assert one.image == other.image
        assert one.entity == other.entity
        steps = [size / 1000 / 2 + 1e-6 for size in (one.width, one.height) * 2]
        assert all(abs(a - b) <= step for a, b, step in zip(one.box_px, other.box_px, steps, strict=True))


def test_shards_keep_everything(lab, tmp_path):
    assert convert(lab, tmp_path / "again", "shards", "--samples-per-shard", "5") == 0
    assert samples(lab) == samples(tmp_path / "again")


@pytest.mark.parametrize(
    ("out", "form", "message"),
    [
        ("x.json", "grpo", "should end in .parquet for grpo"),
        ("x.parquet", "sharegpt", "should end in .json for sharegpt"),
        ("x.parquet", "shards", "should be a folder for shards"),
    ],
)
def test_names_that_do_not_fit(lab, tmp_path, capsys, out, form, message):
    assert convert(lab, tmp_path / out, form) == 2
    assert message in capsys.readouterr().err


def test_nothing_is_overwritten_by_chance(lab, tmp_path, capsys):
    path = tmp_path / "b.parquet"
    assert convert(lab, path, "kvg-bench") == 0
    assert convert(lab, path, "kvg-bench") == 2
    assert "already exists" in capsys.readouterr().err
    assert convert(lab, path, "kvg-bench", "--overwrite") == 0
    assert convert(lab, path, "kvg-bench", "--overwrite", "--mode", "loud") == 2


@pytest.fixture
def expressions(tmp_path):
    """Four referring expressions in Qwen-VL's form: one sticks half a pixel out, one has no picture."""
    folder = tmp_path / "train2014"
    folder.mkdir()
    for number in (9, 72):
        Image.new("RGB", (64, 48), (number, 60, 120)).save(folder / f"COCO_train2014_{number:012d}.jpg", "JPEG")
    rows = [
        (9, "left man", [1.28, 2.4, 30.72, 40.8]),
        (9, "guy in red", [20, 3.5, 64.5, 47]),
        (72, "giraffe +2", [0, 0, 64, 48]),
        (36, "gone", [0, 0, 9, 9]),
    ]
    lines = [
        {"image": f"data/coco/train2014/COCO_train2014_{number:012d}.jpg", "sent": sent, "bbox": box, "height": 48}
        | {"width": 64}
        for number, sent, box in rows
    ]
    path = tmp_path / "refcoco+_testA.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path, "--images", str(folder)


def test_referring_expressions_become_shards_and_kvg_bench_and_come_back(expressions, tmp_path, capsys, caplog):
    source, *images = expressions
    assert convert(source, tmp_path / "shards", "shards", *images) == 0
    told = capsys.readouterr().out
    assert "3 samples in" in told
    assert "1 bad samples" in told
    assert "1 boxes were clipped" in told
    assert "line 4: image: data/coco/train2014/COCO_train2014_000000000036.jpg is not in" in caplog.text
    assert convert(tmp_path / "shards", tmp_path / "b.parquet", "kvg-bench") == 0
    assert convert(tmp_path / "b.parquet", tmp_path / "again", "shards") == 0
    first, last = samples(tmp_path / "shards"), samples(tmp_path / "again")
    assert [s.entity for s in first] == [s.entity for s in last] == ["left man", "guy in red", "giraffe +2"]
    assert [s.image for s in first] == [s.image for s in last]
    assert {s.category for s in last} == {"refcoco+"}
    assert first[1].box_px == (20, 3.5, 64, 47)
    for one, other in zip(first, last, strict=True):  # half a step of the grid is 0.032 and 0.024 pixels
        assert one.box_px == pytest.approx(other.box_px, abs=0.0321)


def test_labels_become_questions_of_several_choices(tmp_path, capsys):
    Image.new("RGB", (30, 20)).save(tmp_path / "1.jpg", "JPEG")
    row = {"image": "images/1.jpg", "options": ["Wren", "Robin", "Dunnock", "Wood_Lark"], "groundtruth": "Wren"}
    source = tmp_path / "british-ViT-L-14-laion2b_s32b_b82k-4.json"
    source.write_text(json.dumps({"Wren": [row]}), "utf-8")
    assert convert(source, tmp_path / "out", "shards", "--category", "bird", "--seed", "3") == 0
    (sample,) = samples(tmp_path / "out")
    assert (sample.entity, sample.category, sample.box_px) == ("Wren", "bird", (0, 0, 30, 20))
    assert sorted(sample.options) == ["Dunnock", "Robin", "Wood Lark", "Wren"]
    capsys.readouterr()
    assert convert(tmp_path / "out", tmp_path / "b.parquet", "kvg-bench") == 2
    assert "kvg-bench cannot contain multiple-choice questions" in capsys.readouterr().err
    assert not (tmp_path / "b.parquet").exists()


def test_a_folder_of_pictures_is_for_lists(lab, tmp_path, capsys):
    assert convert(lab, tmp_path / "out", "shards", "--images", str(tmp_path)) == 2
    assert "images: is only for files that name their pictures" in capsys.readouterr().err


def test_a_list_without_any_of_its_pictures(expressions, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert convert(expressions[0], tmp_path / "out", "shards", "--images", str(tmp_path / "empty")) == 2
    assert "none could be read" in capsys.readouterr().err
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.fixture
def pixels(tmp_path):
    """A ShareGPT file whose boxes are pixels of a picture of 120 x 90, as Qwen2.5-VL's users write them."""
    Image.new("RGB", (120, 90), (9, 90, 120)).save(tmp_path / "a.jpg")
    asked = {"role": "user", "content": "<image>Find and give the bounding box of St. Bernard"}
    told = {"role": "assistant", "content": '{"bbox_2d": [10, 10, 60, 60]}'}
    path = tmp_path / "cot-sft-dog.json"
    path.write_text(json.dumps([{"messages": [asked, told], "images": ["a.jpg"]}]))
    return path


def test_the_unit_of_boxes_is_an_option(pixels, tmp_path, capsys):
    assert convert(pixels, tmp_path / "out", "shards") == 2
    assert "none could be read" in capsys.readouterr().err
    assert convert(pixels, tmp_path / "out", "shards", "--box-unit", "pixels") == 0
    (sample,) = samples(tmp_path / "out")
    assert (sample.entity, sample.box_px) == ("St. Bernard", (10, 10, 60, 60))
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["config"] == {"converted_from": str(pixels), "box_unit": "pixels"}
    assert convert(tmp_path / "out", tmp_path / "again", "shards", "--box-unit", "unit") == 2
    assert "boxes of shards are pixels" in capsys.readouterr().err


def test_inspect_and_report_read_the_same_unit(pixels, tmp_path, capsys):
    more = ["--num", "0", "--table", "1"]
    assert main(["inspect", str(pixels), *more]) == 2
    assert "state box_unit" in capsys.readouterr().err
    assert main(["inspect", str(pixels), *more, "--box-unit", "pixels"]) == 0
    answers = tmp_path / "p.jsonl"
    answers.write_text(json.dumps({"key": "cot-sft-dog-000000", "answer": "", "gt_bbox": [[83, 111, 500, 666]]}))
    report = ["report", "--runs", f"a={answers}", "--set", str(pixels), "--out", str(tmp_path / "page")]
    assert main(report) == 2
    assert "state box_unit" in capsys.readouterr().err
    assert main([*report, "--box-unit", "pixels"]) == 0
    assert "data:image/jpeg" in (tmp_path / "page/index.html").read_text("utf-8")


def test_the_options_are_those_of_box_forms():
    assert (get_args(box_forms.BoxUnit), get_args(box_forms.BoxesOf)) == (BOX_UNITS, BOXES_OF)


@pytest.mark.parametrize("form", ["shards", "sharegpt"])
def test_a_name_that_stands_twice_is_counted(lab, tmp_path, capsys, form):
    bench = tmp_path / "b.parquet"
    assert convert(lab, bench, "kvg-bench") == 0
    table = pq.read_table(bench)
    names = table["question_id"].to_pylist()
    names[1] = names[0]
    pq.write_table(table.set_column(0, "question_id", [names]), bench)
    out = tmp_path / ("out.json" if form == "sharegpt" else "out")
    assert convert(bench, out, form) == 0
    assert "11 samples in" in (said := capsys.readouterr().out)
    assert "1 bad samples" in said
    assert len(samples(out)) == 11
