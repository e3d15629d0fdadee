"""Sets for experiments: composites with other settings, changed rationales, own answers, doses of cards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvg.cli.kvg_data import main
from kvg.lab.traits import load_cards
from kvg.shards.reader import ShardFolder, Tally


def samples_of(folder: Path):
    return [sample for part in ShardFolder(folder).parts() for _, sample in part.read(Tally())]


@pytest.fixture(scope="module")
def composites(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("set") / "set"
    more = ["--setting", "compositor.k_weights={2: 1}", "--setting", "compositor.categories=[bird]"]
    assert main(["compose", "--config", "configs/lab/train.yaml", "--out", str(folder), "--num", "8", *more]) == 0
    return folder


def test_settings_on_the_command_line_override_the_file(composites, tmp_path, capsys):
    samples = samples_of(composites)
    assert {len(sample.objects) for sample in samples} == {2}
    assert {sample.category for sample in samples} == {"bird"}
    command = ["compose", "--config", "configs/lab/train.yaml", "--out", str(tmp_path / "x"), "--num", "1", "--setting"]
    for setting, message in (
        ("compositor.gap", "must be NAME=VALUE"),
        ("compositor.gap.x=1", "leads through a value"),
        ("compositor.gaps=1", "compositor.gaps: is unknown"),
        ("compositor.gap={", "is not YAML"),
    ):
        assert main([*command, setting]) == 2
        assert message in capsys.readouterr().err


def test_a_variant_is_written_and_named_in_the_manifest(composites, tmp_path, capsys):
    out = tmp_path / "filler"
    assert main(["rationalize", "--in", str(composites), "--out", str(out), "--variant", "filler", "--seed", "3"]) == 0
    assert {*" ".join(sample.rationale for sample in samples_of(out)).split()} == {"so"}
    record = json.loads((out / "manifest.json").read_text())["config"]["rationale"]
    assert (record["variant"], record["seed"]) == ("filler", 3)
    command = ["rationalize", "--in", str(composites), "--out", str(tmp_path / "no")]
    assert main([*command, "--variant", "upside_down"]) == 2
    assert main([*command, "--variant", "filler", "--min-facts", "1"]) == 2
    assert "exclude each other" in capsys.readouterr().err


def test_the_rationales_of_right_answers_are_kept(composites, tmp_path):
    lines = []
    for number, sample in enumerate(samples_of(composites)):
        boxes = [[1000 * v / side for v, side in zip(o.box_px, [sample.width, sample.height] * 2, strict=True)]
                 for o in sample.objects]  # fmt: skip
        said = sample.target if number % 2 else 1 - sample.target
        box = "<|box_start|>({:.0f},{:.0f}),({:.0f},{:.0f})<|box_end|>".format(*boxes[said])
        objects = [{"entity": o.entity, "box": b} for o, b in zip(sample.objects, boxes, strict=True)]
        thought = f"Look: 1 {box} this." if number != 3 else "Look: (0,0),(1,1) nothing."
        answer = f"<think>{thought}</think><answer>{box}</answer>"
        lines.append({"key": sample.key, "answer": answer, "gt_bbox": [boxes[sample.target]], "target": sample.target,
                      "objects": objects})  # fmt: skip
    path = tmp_path / "predictions.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "own"
    assert main(["rationalize", "--in", str(composites), "--out", str(out), "--answers", str(path)]) == 0
    kept = samples_of(out)
    assert [sample.key[-1] for sample in kept] == ["1", "5", "7"]
    assert {sample.rationale for sample in kept} == {"Look: 1 <box:0> this.", "Look: 1 <box:1> this."} or len(
        {sample.rationale for sample in kept}
    ) == 1
    reasons = [json.loads(line)["reasons"] for line in (out / "set_aside.jsonl").read_text().splitlines()]
    assert ["boxes: (0,0),(1,1) is the box of no object"] in reasons


def test_a_dose_of_unknown_cards(tmp_path, capsys):
    out = tmp_path / "cards"
    assert main(["cards", "--out", str(out), "--repeats", "2", "--unknown-repeats", "3"]) == 0
    cards = load_cards()
    known, unknown = [c for c in cards if c.known], [c for c in cards if not c.known]
    assert f"{2 * len(known) + 3 * len(unknown)} texts of {len(cards)} cards" in capsys.readouterr().out
    assert main(["cards", "--out", str(out), "--unknown-repeats", "-1"]) == 2
