from __future__ import annotations

import io
import json

import pytest
from PIL import Image

from kvg.shards.writer import ShardWriter
from kvg.tools.main import main
from kvg.types import Sample, SceneObject

STAGES = ("base", "direct_sft", "cot_sft", "cot_sft_grpo")
TARGET = (2.0, 2.0, 22.0, 22.0)


@pytest.fixture
def finished(tmp_path):
    """Four runs over 40 samples: base is right on 8, direct SFT on 16, CoT-SFT on 24, GRPO on 32."""
    picture = io.BytesIO()
    Image.new("RGB", (56, 28), (90, 160, 210)).save(picture, "PNG")
    objects = (
        SceneObject("Hoopoe", TARGET, "grey, plain"),
        SceneObject("Merlin", (30.0, 2.0, 50.0, 22.0), "red, plain"),
    )
    samples = [
        Sample(f"k{i:02}", picture.getvalue(), 56, 28, "bird" if i % 2 else "dog", "seen" if i % 2 else "unseen",
               objects, 0, knowledge="known" if i % 4 < 2 else "unknown")
        for i in range(40)
    ]  # fmt: skip
    with ShardWriter(tmp_path / "data") as writer:
        for sample in samples:
            writer.write(sample)
    for number, stage in enumerate(STAGES, 1):
        folder = tmp_path / stage
        folder.mkdir()
        lines = [
            {"key": s.key, "category": s.category, "split": s.split, "knowledge": s.knowledge, "entity": s.entity,
             "text": "?", "box_px": TARGET if i < 8 * number else None, "target_px": TARGET}
            for i, s in enumerate(samples)
        ]  # fmt: skip
        (folder / "predictions.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return tmp_path


def call(folder, *more, stages=STAGES):
    runs = [f"{stage}={folder / stage}" for stage in reversed(stages)]
    options = ["--shards", folder / "data", "--out", folder / "out", "--runs", *runs, *more]
    return main(["report", *map(str, options)])


def test_table_results_and_page(finished, capsys):
    assert call(finished) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("Base", "Direct SFT", "CoT-SFT", "n=10"))
    record = json.loads((finished / "out/results.json").read_text())
    assert list(dict.fromkeys(row["stage"] for row in record["rows"])) == list(STAGES)
    assert len(record["rows"]) == 4 * 6
    for row in record["rows"]:
        assert set(row) == {"stage", "split", "knowledge", "n", "acc", "ci_low", "ci_high", "mean_iou"}
        assert row["n"] == (20 if row["knowledge"] == "all" else 10)
        assert row["acc"] == row["mean_iou"] == pytest.approx(0.2 * (STAGES.index(row["stage"]) + 1))
        assert 0 <= row["ci_low"] <= row["acc"] <= row["ci_high"] <= 1
    gain = next(g for g in record["gains"] if (g["before"], g["split"], g["knowledge"]) == ("base", "seen", "all"))
    assert (gain["after"], gain["n"], round(gain["gain"], 9)) == ("cot_sft", 20, 0.4)
    assert record["settings"]["seed"] == 0
    assert record["versions"]["torch"]
    page = (finished / "out/index.html").read_text("utf-8")
    assert page.count("<figure class=case>") == 24
    assert sorted(path.name for path in (finished / "out").iterdir()) == ["index.html", "results.json"]


def test_the_table_fits_into_eighty_columns(finished, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    call(finished)
    out = capsys.readouterr().out
    assert "…" not in out


def test_the_seed_decides_the_intervals(finished):
    found = []
    for seed in (0, 0, 1):
        call(finished, "--seed", seed)
        found.append(json.loads((finished / "out/results.json").read_text())["rows"])
    assert found[0] == found[1] != found[2]


def test_one_stage_alone(finished):
    assert call(finished, stages=("cot_sft",)) == 0
    record = json.loads((finished / "out/results.json").read_text())
    assert {row["stage"] for row in record["rows"]} == {"cot_sft"}
    assert record["gains"] == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--runs", "base"), "--runs: 'base' is not STAGE=DIR with a stage of base, direct_sft"),
        (("--runs", "sft=x"), "--runs: 'sft=x' is not STAGE=DIR"),
        (("--runs", "base=x", "base=y"), "--runs: base is named twice"),
        (("--curves", "base=nowhere"), "nowhere: events.out.tfevents: no such file"),
        (("--shards", "nowhere"), "nowhere"),
        (("--runs", "base=nowhere"), "nowhere: predictions.jsonl: is not there"),
    ],
)
def test_wrong_options(finished, capsys, more, message):
    assert call(finished, *more) == 2
    assert message in capsys.readouterr().err
