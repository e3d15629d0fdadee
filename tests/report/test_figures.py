from __future__ import annotations

import json

import pytest

from kvg.errors import DataError
from kvg.report.cases import read_predictions
from kvg.report.curves import read_curves, smooth
from kvg.report.figures import gains, rows
from kvg.report.gallery import pick


def test_predictions_by_hand(make_case, write_run):
    cases = [
        make_case("a", box_px=(0, 0, 10, 5)),  # half of the truth: IoU 50 / 100, just right
        make_case("b", box_px=(0, 0, 10, 4.9)),
        make_case("c", box_px=None),
        make_case("d", box_px=(10, 10, 0, 0)),  # corners the wrong way round
    ]
    read = read_predictions(write_run("base", cases))
    assert [case.iou for case in read] == pytest.approx([0.5, 0.49, 0, 0])
    assert [case.right for case in read] == [True, False, False, False]
    assert read[2].box_px is None


def test_predictions_of_two_processes_count_each_key_once(make_case, write_run):
    write_run("base", [make_case("a"), make_case("b")], "predictions-0.jsonl")
    folder = write_run("base", [make_case("c"), make_case("a", right=False)], "predictions-1.jsonl")
    assert [(case.key, case.right) for case in read_predictions(folder)] == [("a", True), ("b", True), ("c", True)]


def test_predictions_that_cannot_be_used(make_case, write_run, tmp_path):
    with pytest.raises(DataError, match="run `kvg test`"):
        read_predictions(tmp_path)
    folder = write_run("base", [make_case("a"), make_case("b")])
    path = folder / "predictions.jsonl"
    record = json.loads(path.read_text().splitlines()[0])
    for field, value in (("box_px", [1, 2, 3]), ("target_px", None), ("box_px", ["x"] * 4)):
        path.write_text(json.dumps(record) + "\n" + json.dumps({**record, field: value}) + "\n")
        with pytest.raises(DataError, match=r"predictions.jsonl line 2: prediction"):
            read_predictions(folder)
    del record["entity"]
    path.write_text(json.dumps(record))
    with pytest.raises(DataError, match=r"line 1.*entity"):
        read_predictions(folder)


def test_rows_by_hand(make_case):
    base = [make_case(f"k{i}", right=i < 3) for i in range(4)]  # seen, known: 3 of 4
    base += [make_case(f"u{i}", right=False, knowledge="unknown") for i in range(4)]  # seen, unknown: 0 of 4
    base += [make_case("x", split="unseen", knowledge="unknown")]
    found = {(r["split"], r["knowledge"]): r for r in rows({"base": base}, seed=0)}
    assert list(found) == [
        ("seen", "known"),
        ("seen", "unknown"),
        ("seen", "all"),
        ("unseen", "unknown"),
        ("unseen", "all"),
    ]
    assert (found["seen", "known"]["n"], found["seen", "known"]["acc"]) == (4, 0.75)
    assert (found["seen", "all"]["n"], found["seen", "all"]["acc"], found["seen", "all"]["mean_iou"]) == (
        8,
        0.375,
        0.375,
    )
    assert found["seen", "unknown"]["ci_low"] == found["seen", "unknown"]["ci_high"] == 0
    assert (found["unseen", "all"]["acc"], found["unseen", "all"]["ci_low"]) == (1, 1)
    known = found["seen", "known"]
    assert 0 < known["ci_low"] < 0.75 < known["ci_high"] <= 1
    assert rows({"base": base}, seed=0) == rows({"base": base}, seed=0)


def test_gains_are_paired(make_case):
    before = [make_case(f"k{i}", right=i < 2) for i in range(10)] + [make_case("alone")]
    after = [make_case(f"k{i}", right=i < 5) for i in range(10)]
    found = gains({"cot_sft": before, "cot_sft_grpo": after}, seed=0)
    assert [(g["split"], g["knowledge"]) for g in found] == [("seen", "known"), ("seen", "all")]
    gain = found[0]
    assert (gain["before"], gain["after"], gain["n"]) == ("cot_sft", "cot_sft_grpo", 10)
    assert gain["gain"] == pytest.approx(0.3)
    # Nothing was lost, so no resample can be negative; unpaired intervals would be.
    assert 0 <= gain["ci_low"] < 0.3 < gain["ci_high"] <= 0.7
    assert gains({"base": before}, seed=0) == []


def test_gallery_shows_many_categories_and_no_picture_twice(make_case):
    names = ("bird", "car", "dog", "food")
    cases = [
        make_case(f"{name}{i}", right=i % 2 == 0, category=name, box_px=None if i == 1 else (0, 0, 10, 10))
        for name in names
        for i in range(6)
    ]
    shown = {case.key for case in cases}
    found = pick({"base": cases, "cot_sft": cases}, shown, {"base": 4, "cot_sft": 4}, seed=0)
    for stage in found:
        verdicts = [case.right for case in found[stage]]
        assert verdicts == [True] * 4 + [False] * 4
        assert (
            {case.category for case in found[stage][:4]} == {case.category for case in found[stage][4:]} == set(names)
        )
        assert sum(case.box_px is None for case in found[stage]) <= 1
    keys = [case.key for stage in found.values() for case in stage]
    assert len(set(keys)) == len(keys) == 16
    assert pick({"base": cases}, {"bird0"}, {"base": 4}, seed=0)["base"] == [cases[0]]
    assert pick({"base": cases}, shown, {}, seed=0) == {"base": []}


def test_curves_of_real_event_files(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    for version, steps in (("version_0", range(0, 30)), ("version_1", range(20, 50))):  # resumed at step 20
        with SummaryWriter(tmp_path / "lightning_logs" / version) as writer:
            for step in steps:
                writer.add_scalar("train/loss", step if version == "version_0" else 100 + step, step)
    curves = read_curves(tmp_path)
    assert list(curves) == ["train/loss"]
    assert [step for step, _ in curves["train/loss"]] == list(range(50))
    assert curves["train/loss"][19] == (19, 19.0)
    assert curves["train/loss"][20] == (20, 120.0)
    with pytest.raises(DataError, match="no such file below this folder"):
        read_curves(tmp_path / "nowhere")


def test_a_running_mean_keeps_what_is_constant():
    assert smooth([(i, 2.0) for i in range(100)]) == [(i, 2.0) for i in range(100)]
    assert smooth([(0, 1.0)]) == [(0, 1.0)]
