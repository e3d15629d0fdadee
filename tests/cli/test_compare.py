"""`kvg-data compare`: tables and sentences, files, names, and what it says of bad files."""

from __future__ import annotations

import json

import pytest

from kvg.cli.kvg_data import main

RIGHT, WRONG = "(100,100),(400,400)", "(600,600),(900,900)"


@pytest.fixture
def write_run(tmp_path):
    """Writes 40 answers, of which the given are right, and returns the folder."""

    def write(name, right, num=40):
        lines = []
        for i in range(num):
            category, split = ("dog", "unseen") if i % 2 else ("bird", "seen")
            line = {"key": f"k{i}", "set": "test", "category": category, "split": split, "image": f"p{i // 2}"}
            lines.append({**line, "gt_bbox": [[100, 100, 400, 400]], "answer": RIGHT if i in right else WRONG})
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return str(folder)

    return write


def test_tables_sentences_and_files(write_run, tmp_path, capsys):
    runs = [write_run("base", range(10)), write_run("sft", range(30)), write_run("grpo", range(1, 31))]
    out = tmp_path / "out"
    assert main(["compare", *runs, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "sft against base: +50.0 points" in said
    assert "grpo against sft: +0.0 points" in said
    assert "minimum detectable difference" in said
    assert "one run each: base, sft, grpo" in said
    record = json.loads((out / "comparison.json").read_text())
    assert record["runs"] == {"base": 1, "sft": 1, "grpo": 1}
    assert record["paths"]["sft"] == [runs[1]]
    (row,) = [r for r in record["differences"] if (r["before"], r["after"], r["by"]) == ("base", "sft", "all")]
    assert (row["only_after"], row["only_before"], row["n"], row["pictures"], row["significant"]) == (
        20,
        0,
        40,
        20,
        True,
    )
    page = (out / "comparison.md").read_text()
    assert page.startswith("# Comparison\n\n- sft against base: +50.0 points")
    assert "| all cases | 40 | 20 | 25.0 (" in page
    assert "## grpo against sft" in page
    assert "| **By category** |" in page


def test_pairs_with_one_run_alone_are_a_family_of_their_own(write_run, tmp_path):
    runs = [write_run("base", range(10)), write_run("sft", range(30)), write_run("grpo", range(40))]
    values = {}
    for name, more in (("every", []), ("one", ["--against", "base"])):
        out = tmp_path / name
        assert main(["compare", *runs, *more, "--out", str(out)]) == 0
        rows = json.loads((out / "comparison.json").read_text())["differences"]
        values[name] = {(row["before"], row["after"]): row["p_holm"] for row in rows if row["by"] == "all"}
    # Two cases a picture: 20, 30 and 10 cases won are 10, 15 and 5 pictures, each with a mid-p of 2**-pictures.
    assert values["every"] == {
        ("base", "sft"): pytest.approx(2 * 2**-10),
        ("base", "grpo"): pytest.approx(3 * 2**-15),
        ("sft", "grpo"): pytest.approx(2**-5),
    }
    assert values["one"] == {("base", "sft"): pytest.approx(2**-10), ("base", "grpo"): pytest.approx(2 * 2**-15)}


def test_seeds_are_told_one_by_one(write_run, tmp_path, capsys):
    seeds = [write_run(f"s{n}", range(20 + 2 * n)) for n in range(3)]
    base = write_run("base", range(6))
    assert main(["compare", f"base={base}", "grpo=" + ",".join(seeds), "--by", ""]) == 0
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if line.split()[:1] == ["grpo"])
    assert line.split()[1:] == ["50.0", "55.0", "60.0", "5.0"]
    assert "By split" not in said
    assert "grpo against base: +40.0 points" in said


def test_the_same_seed_gives_the_same_bytes(write_run, tmp_path):
    runs = [write_run("a", range(10)), write_run("b", range(5, 30))]
    written = []
    for name, seed in (("one", "1"), ("two", "1"), ("three", "2")):
        assert main(["compare", *runs, "--seed", seed, "--out", str(tmp_path / name)]) == 0
        written.append((tmp_path / name / "comparison.json").read_bytes())
    assert written[0] == written[1] != written[2]


def test_runs_may_be_files_and_have_names(write_run, tmp_path, capsys):
    first, second = write_run("a=1,2", range(10)), write_run("b", range(20))
    assert main(["compare", first, f"{second}/predictions.jsonl", "--names", "one", "two", "--by", "split"]) == 0
    assert "two against one: +25.0 points" in capsys.readouterr().out


def test_cases_that_one_run_lacks(write_run, capsys):
    runs = [write_run("a", range(10)), write_run("b", range(10), num=30)]
    assert main(["compare", *runs]) == 2
    assert "run 'b': cases: 10 of 40 cases are missing, first 'test/k30'" in capsys.readouterr().err
    assert main(["compare", *runs, "--common"]) == 0
    assert "10 cases are skipped because not all runs have them" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--by", "colour"], "by: 'colour' is not a grouping"),
        (["--level", "95"], "level: 95 must lie between 0 and 1"),
        (["--names", "one"], "--names: 1 names for 2 runs; give one for each"),
        (["--names", "one", "one"], "runs: two have the name 'one'"),
        (["x="], "runs: 'x=' is not RUN"),
        (["x=nowhere"], "nowhere: predictions: cannot be read"),
    ],
)
def test_bad_settings_are_told_in_one_line(write_run, capsys, options, message):
    runs = [write_run("a", range(10)), write_run("b", range(20))]
    more = [] if options[0].startswith("--") else options
    assert main(["compare", *runs, *more, *(options if not more else [])]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_bad_line_is_named(write_run, tmp_path, capsys):
    run = write_run("a", range(10))
    with open(f"{run}/predictions.jsonl", "a") as stream:
        stream.write('{"answer": "(1,1),(2,2)"}\n')
    assert main(["compare", run]) == 2
    assert "predictions.jsonl line 41: gt_bbox: is missing" in capsys.readouterr().err


def test_two_runs_of_one_name_are_refused(write_run, capsys):
    assert main(["compare", write_run("x/test", range(3)), write_run("y/test", range(4))]) == 2
    assert "runs: two have the name 'test'; give other names by NAME=RUN" in capsys.readouterr().err
