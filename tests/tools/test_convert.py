"""`kvg-data convert`: there and back again, and what has no place is said."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest

from kvg.formats.stores import open_store
from kvg.tools.main import main


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
    assert f"{form} has no place for" in capsys.readouterr().out
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
    assert "already there" in capsys.readouterr().err
    assert convert(lab, path, "kvg-bench", "--overwrite") == 0
    assert convert(lab, path, "kvg-bench", "--overwrite", "--mode", "loud") == 2
