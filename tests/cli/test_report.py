from __future__ import annotations

import io
import json

import pytest
from PIL import Image

from kvg.cli.kvg_data import main
from kvg.evaluation.records.question import Question
from kvg.shards.writer import ShardWriter
from kvg.text.box_codec import ImageSize, RelativeCodec
from kvg.types import Sample, SceneObject

STAGES = ("base", "direct_sft", "cot_sft", "cot_sft_grpo")
SIZE = ImageSize(56, 28, 56, 28)
CODEC = RelativeCodec()


@pytest.fixture
def finished(tmp_path):
    """Four runs over 40 samples: base is right on 8, direct SFT on 16, CoT-SFT on 24, GRPO on 32."""
    objects = (
        SceneObject("Hoopoe", (2.0, 2.0, 22.0, 22.0), ("grey", "plain")),
        SceneObject("Merlin", (30.0, 2.0, 50.0, 22.0), ("red", "plain")),
    )
    samples = []
    for i in range(40):
        file = io.BytesIO()
        Image.new("RGB", (56, 28), (90, 160, i)).save(file, "PNG")
        category, split = ("bird", "seen") if i % 2 else ("dog", "unseen")
        knowledge = "known" if i % 4 < 2 else "unknown"
        samples.append(Sample(f"k{i:02}", file.getvalue(), 56, 28, category, split, objects, 0, knowledge=knowledge))
    with ShardWriter(tmp_path / "data") as writer:
        for sample in samples:
            writer.write(sample)
    for number, stage in enumerate(STAGES, 1):
        (tmp_path / stage).mkdir()
        answers = [CODEC.encode(s.box_px, SIZE) if i < 8 * number else "?" for i, s in enumerate(samples)]
        lines = [
            Question(s, "test").line(answer, "direct", CODEC, SIZE, num_tokens=9, finish_reason="stop")
            for s, answer in zip(samples, answers, strict=True)
        ]
        (tmp_path / stage / "predictions.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return tmp_path


def call(folder, *more, stages=STAGES):
    runs = [f"{stage}={folder / stage}" for stage in stages]
    return main(["report", "--runs", *runs, "--out", str(folder / "out"), *map(str, more)])


def read(folder):
    return json.loads((folder / "out/results.json").read_text())


def test_tables_results_and_page(finished, capsys):
    assert call(finished, "--set", finished / "data") == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("Base", "Direct SFT", "CoT-SFT", "CoT-SFT over Base"))
    record = read(finished)
    assert list(record["runs"]) == list(STAGES)
    for number, results in enumerate(record["runs"].values(), 1):
        overall = results["figures"][0]
        assert (overall["by"], overall["n"], overall["pictures"]) == ("all", 40, 40)
        accuracy = overall["accuracy"]
        assert accuracy["value"] == pytest.approx(0.2 * number)
        assert accuracy["low"] < accuracy["value"] < accuracy["high"]
        assert results["facts"]["unparsed"] == 40 - 8 * number
    pairs = {(pair["before"], pair["after"]): pair for pair in record["pairs"]}
    assert list(pairs) == [("base", "cot_sft"), ("direct_sft", "cot_sft"), ("cot_sft", "cot_sft_grpo")]
    gain = pairs["base", "cot_sft"]["differences"][0]
    assert (gain["by"], gain["n"], round(gain["difference"]["value"], 9)) == ("all", 40, 0.4)
    assert (gain["only_after"], gain["only_before"], gain["significant"]) == (16, 0, True)
    assert record["settings"]["seed"] == 0
    assert record["versions"]["torch"]
    page = (finished / "out/index.html").read_text("utf-8")
    assert page.count("<article class=card") == page.count("data:image/png") == 40
    assert sorted(path.name for path in (finished / "out").iterdir()) == ["index.html", "results.json", "results.md"]
    assert "| all cases | 40 | 20.0 (" in (finished / "out/results.md").read_text("utf-8")


def test_the_tables_fit_into_eighty_columns(finished, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    call(finished)
    out = capsys.readouterr().out
    assert "…" not in out
    assert max(map(len, out.splitlines()[:-1])) <= 80


def test_the_seed_decides_intervals_and_cases(finished):
    found = []
    for seed in (0, 0, 1):
        call(finished, "--seed", seed, "--cases", 8)
        found.append((read(finished)["runs"], (finished / "out/index.html").read_text("utf-8")))
    assert found[0] == found[1]
    assert found[0][0] != found[2][0]
    assert found[2][1].count("<article class=card") == 8


def test_one_run_alone_without_a_set(finished):
    assert call(finished, "--title", "Mine <alone>", stages=("cot_sft",)) == 0
    record = read(finished)
    assert list(record["runs"]) == ["cot_sft"]
    assert record["pairs"] == []
    page = (finished / "out/index.html").read_text("utf-8")
    assert "<h1>Mine &lt;alone&gt;</h1>" in page
    assert "data:image" not in page
    assert page.count("<article class=card") == 40


def test_answers_of_others_are_a_run_too(finished, tmp_path):
    """What `kvg-data score` needs is all that is needed."""
    line = {"answer": "(0,0),(500,500)", "gt_bbox": [[0, 0, 500, 500]]}
    (tmp_path / "theirs.jsonl").write_text(json.dumps(line) + "\n" + json.dumps({**line, "answer": "?"}) + "\n")
    assert main(["report", "--runs", f"theirs={tmp_path / 'theirs.jsonl'}", "--out", str(tmp_path / "out")]) == 0
    assert read(tmp_path)["runs"]["theirs"]["figures"][0]["accuracy"]["value"] == 0.5


def test_the_menu_names_other_pages(finished, capsys):
    assert call(finished, "--links", "More seeds=../docs/a&b.md") == 0
    menu = (finished / "out/index.html").read_text().partition("<nav>")[2].partition("</nav>")[0]
    assert menu.endswith('<a href="../docs/a&amp;b.md">More seeds</a>')
    assert call(finished, "--links", "../docs") == 2
    assert "--links: '../docs' is not NAME=PATH" in capsys.readouterr().err


def test_pairs_in_any_order_and_the_record_of_a_run(finished):
    told = {"num_bad": 3, "bad": ["row 1: image"], "settings": {"mode": "direct"}}
    (finished / "base/predictions.json").write_text(json.dumps(told))
    assert call(finished, "--pairs", "cot_sft:base") == 0
    record = read(finished)
    assert record["runs"]["base"]["facts"]["record"] == told
    assert record["pairs"][0]["differences"][0]["difference"]["value"] == pytest.approx(-0.4)
    assert "row 1: image" in (finished / "out/index.html").read_text("utf-8")


def test_what_is_known_and_what_was_shown(finished):
    (finished / "knowledge.json").write_text(json.dumps({"Hoopoe": 0.95}))
    lines = (finished / "base/predictions.jsonl").read_text().splitlines()
    untold = [json.dumps({**json.loads(line), "knowledge": None}) for line in lines]
    (finished / "base/predictions.jsonl").write_text("\n".join(untold) + "\n")
    more = ("--knowledge", finished / "knowledge.json", "--trained", finished / "data")
    assert call(finished, *more, stages=("base",)) == 0
    figures = {(f["by"], f["name"]): f["n"] for f in read(finished)["runs"]["base"]["figures"]}
    assert figures["knowledge", "known"] == 40
    assert figures["exposure", "pictures only"] == 40
    assert any(by == "level" for by, _ in figures)
    page = (finished / "out/index.html").read_text("utf-8")
    assert page.count('data-knowledge="known"') == 40


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--runs", "base"), "--runs: 'base' is not NAME=PATH"),
        (("--runs", "base=x", "base=y"), "--runs: base occurs twice"),
        (("--curves", "base=nowhere"), "nowhere: events.out.tfevents: no such file"),
        (("--set", "nowhere"), "nowhere"),
        (("--set", "other=data"), "--set: 'other' is not a set of these runs; they have test"),
        (("--runs", "base=nowhere"), "nowhere: predictions: cannot be read"),
        (("--pairs", "base:mine"), "--pairs: 'base:mine' is not BEFORE:AFTER with two of the runs base, direct_sft"),
        (("--cases", "-1"), "--cases: -1 must be at least 0"),
        (("--texts", "cards.jsonl"), "--trained: is missing; also name the training sets"),
    ],
)
def test_wrong_options(finished, capsys, more, message):
    assert call(finished, *more) == 2
    assert message in capsys.readouterr().err


def test_a_full_disk_is_told(finished, capsys):
    (finished / "out").write_text("in the way")
    assert call(finished) == 2
    assert "out: out: cannot be written" in capsys.readouterr().err


def test_report_and_compare_tell_one_p_value_of_a_pair(finished, capsys):
    assert call(finished) == 0
    runs = [f"{stage}={finished / stage}" for stage in STAGES]
    by = "split,category,knowledge,split and knowledge"
    assert main(["compare", *runs, "--by", by, "--out", str(finished / "compared")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    compared = json.loads((finished / "compared/comparison.json").read_text())["differences"]
    by_place = {(row["before"], row["after"], row["by"], row["name"]): row for row in compared}
    reported = [row for pair in read(finished)["pairs"] for row in pair["differences"]]
    for row in reported:
        assert row == by_place[row["before"], row["after"], row["by"], row["name"]] | {"set": row["set"]}
    # Each run is right on eight more than the one before. With k won and none lost the mid-p is 2**-k: of the six pairs
    # 2**-24, two of 2**-16 and three of 2**-8, which Holm multiplies by 6, by 5 and 4, and by 3, 2 and 1, in order.
    holm = {(row["before"], row["after"]): row["p_holm"] for row in reported if row["by"] == "all"}
    assert holm == {
        ("base", "cot_sft"): pytest.approx(5 * 2**-16),
        ("direct_sft", "cot_sft"): pytest.approx(3 * 2**-8),
        ("cot_sft", "cot_sft_grpo"): pytest.approx(3 * 2**-8),
    }
    assert "cot_sft_grpo against cot_sft: +20.0 points" in printed
    assert "p = 0.012: significant" in printed
    for name in ("results.md", "index.html"):
        assert "p = 0.012" in (finished / "out" / name).read_text()


def test_the_training_of_an_export_is_found(finished, capsys):
    """``predictions.json`` names the export that answered; its folder holds the logs."""
    from torch.utils.tensorboard import SummaryWriter

    (finished / "cot/export").mkdir(parents=True)
    with SummaryWriter(finished / "cot/lightning_logs/version_0") as writer:
        writer.add_scalar("train/loss", 1.0, 0)
    record = {"checkpoint": str(finished / "cot/export")}
    (finished / "cot_sft/predictions.json").write_text(json.dumps(record))
    assert call(finished, stages=("cot_sft",)) == 0
    assert read(finished)["curves"] == {"cot_sft": {"train/loss": [[0, 1.0]]}}
    saved = {"checkpoint": "lab", "ckpt_path": str(finished / "cot/lightning_logs/version_0/checkpoints/last.ckpt")}
    (finished / "cot_sft/predictions.json").write_text(json.dumps(saved))
    assert call(finished, stages=("cot_sft",)) == 0
    assert list(read(finished)["curves"]) == ["cot_sft"]
    (finished / "cot_sft/predictions.json").write_text(json.dumps({"checkpoint": "elsewhere/export"}))
    assert call(finished, stages=("cot_sft",)) == 0
    assert read(finished)["curves"] == {}
    assert "name the folders of the trainings with --curves" in (finished / "out/index.html").read_text()
    assert main(["report", "--out", str(finished / "out")]) == 2
    assert "--runs: is missing; name a run, or trainings by --curves" in capsys.readouterr().err
