"""`kvg-data score`: the same lines with their verdicts, all of them or none."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from kvg.cli import score
from kvg.cli.kvg_data import main
from kvg.evaluation.records.prediction import read_predictions
from kvg.evaluation.records.scoring import PARSERS

TRUTH = [[100, 100, 400, 400]]
RIGHT, WRONG = "(100,100),(400,400)", "(600,600),(900,900)"


@pytest.fixture
def write(tmp_path):
    """Writes lines, objects or texts, to a file."""

    def write(*lines, name="answers.jsonl"):
        path = tmp_path / name
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        path.write_text(text, "utf-8")
        return path

    return write


def judge(path, *more, out=None):
    """Exit code, and the lines that were written."""
    out = out or path.with_name("out.jsonl")
    code = main(["score", str(path), "--out", str(out), *more])
    return code, [json.loads(line) for line in out.read_text("utf-8").splitlines()] if out.exists() else None


def line(answer=RIGHT, **fields):
    return {"answer": answer, "gt_bbox": TRUTH, **fields}


def test_a_line_keeps_what_it_has_and_gets_its_verdict(write):
    given = [line(RIGHT, note="Épervier"), line("I cannot find it."), line("<think>" + RIGHT, box="stale", iou=7)]
    code, lines = judge(write(*given))
    assert code == 0
    assert lines == [
        {**given[0], "box": [100, 100, 400, 400], "pattern": 1, "iou": 1, "correct": True, "parser": "strict"},
        {**given[1], "box": None, "pattern": 0, "iou": 0, "correct": False, "parser": "strict"},
        {**given[2], "box": None, "pattern": 0, "iou": 0, "correct": False, "parser": "strict"},
    ]
    for parser, pattern in (("published-v2", 3), ("published-v3", 3)):
        code, lines = judge(write(*given), "--parser", parser)
        assert [(one["pattern"], one["box"]) for one in lines] == [
            (pattern, [100, 100, 400, 400]),
            (0, [0, 0, 0, 0]),
            (pattern, [100, 100, 400, 400]),
        ]
        assert {one["parser"] for one in lines} == {parser}


@pytest.mark.parametrize("parser", PARSERS)
def test_what_was_written_is_read_again_with_the_same_verdicts(write, parser):
    path = write(*(line(answer, key=key) for key, answer in enumerate((RIGHT, WRONG, "no", f"<think>{RIGHT}"))))
    _, lines = judge(path, "--parser", parser)
    cases = read_predictions(path.with_name("out.jsonl"))
    assert [(case.correct, case.iou) for case in cases] == [(one["correct"], one["iou"]) for one in lines]
    assert [case.answered for case in cases] == [True, True, False, parser != "strict"]
    assert judge(path.with_name("out.jsonl"), "--parser", parser, out=path.with_name("again.jsonl"))[1] == lines


def test_figures_weigh_cases_alike_and_categories_alike(write, capsys):
    birds = [line(RIGHT, category="bird"), line(RIGHT, category="bird"), line(RIGHT, category="bird")]
    path = write(*birds, line(WRONG, category="bird"), line("no", category="dog"))
    assert judge(path)[0] == 0
    out = capsys.readouterr().out
    rows = {words[0]: words[1:] for words in map(str.split, out.splitlines()) if words}
    assert rows["all"] == ["5", "60.0", "60.0", "20.0"]  # cases, Acc@0.5, mean IoU, unparsed
    assert rows["mean"] == ["of", "categories", "37.5"]  # (75 + 0) / 2
    assert rows["bird"] == ["4", "75.0", "75.0", "0.0"]
    assert rows["dog"] == ["1", "0.0", "0.0", "100.0"]
    assert "none: 1, 1: 4" in out
    assert "–" in out  # intervals


def test_cases_on_one_picture_are_one_draw(write, capsys):
    lines = [line(RIGHT if n < 10 else WRONG) for n in range(20)]
    widths = []
    for some in (lines, [{**one, "image": f"picture {n // 5}"} for n, one in enumerate(lines)]):
        capsys.readouterr()
        judge(write(*some))
        interval = next(text for text in capsys.readouterr().out.splitlines() if "–" in text).split()[0]
        low, high = map(float, interval.split("–"))
        widths.append(high - low)
    assert widths[1] > 1.4 * widths[0]  # four pictures instead of twenty


def test_choices_and_disturbed_pictures_have_tables_of_their_own(write, capsys):
    choice = {"answer": "B", "options": ["Merlin", "Hobby"], "right": 1, "set": "dogs"}
    noisy = line(WRONG, key="a", artifact="noise", strength=2)
    code, lines = judge(write(choice, {**choice, "answer": "A"}, line(RIGHT, key="a"), noisy))
    assert code == 0
    assert lines[0] == {**choice, "chosen": 1, "correct": True, "parser": "strict"}
    out = capsys.readouterr().out
    rows = [text.split() for text in out.splitlines()]
    assert ["all", "1", "100.0", "100.0", "0.0"] in rows
    assert ["noise", "0", "1", "100.0"] in rows
    assert ["noise", "2", "1", "0.0"] in rows
    assert ["dogs", "2", "50.0", "50.0", "0.0"] in rows


def test_pixels_are_told_of_once(write, capsys):
    pixels = line("[112, 56, 560, 560]", codec="absolute", size=[2000, 1000, 1120, 560])
    assert judge(write(pixels, pixels), "--parser", "published-v2")[0] == 0
    err = capsys.readouterr().err
    assert err.count("codec: absolute") == 1
    assert err.startswith("kvg-data: 2 lines hold boxes in pixels")
    assert judge(write(pixels, pixels))[0] == 0
    assert capsys.readouterr().err == ""


def test_fields_that_are_not_needed_may_hold_anything(write):
    odd = line(objects=3, target="Merlin", image={"id": 1}, entity=5, size=None, description=[], answers=[RIGHT])
    code, lines = judge(write(odd, "", {**odd, "answer": "half a pair: \ud800"}))
    assert code == 0
    assert [one["correct"] for one in lines] == [True, False]
    assert lines[1]["answer"].endswith("\ud800")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "answers.jsonl: lines: the file has no lines"),
        (["\n"], "answers.jsonl: lines: the file has no lines"),
        ([line(), "{"], "answers.jsonl line 2: json: cannot be read"),
        ([line(), "[1]"], "answers.jsonl line 2: json: is not an object"),
        ([line(), "[" * 100_000], "answers.jsonl line 2: json: cannot be read"),
        ([line(), {"gt_bbox": TRUTH}], "answers.jsonl line 2: answer: is missing"),
        ([line(), {"answer": RIGHT}], "answers.jsonl line 2: gt_bbox: is missing"),
        ([line(), "", line(None)], "answers.jsonl line 3: answer: None must be text"),
        ([line(gt_bbox=[])], "answers.jsonl line 1: gt_bbox: [] is not a list of boxes"),
        ([line(gt_bbox=[1, 2, 3, 4])], "answers.jsonl line 1: gt_bbox[0]: 1 is not four numbers"),
        ([line(gt_bbox=[[1, 2, 3, 1004]])], "gt_bbox[0]: [1, 2, 3, 1004] does not lie on the 0-1000 grid"),
        ([line(gt_bbox=[[1, 2, 3, 10**400]])], "does not lie on the 0-1000 grid"),
        (['{"answer": "", "gt_bbox": [[0, 0, NaN, 5]]}'], "does not lie on the 0-1000 grid"),
        ([line(gt_bbox=[[5, 5, 5, 9]])], "gt_bbox: [[5, 5, 5, 9]] holds no box with x1 < x2"),
        ([line(key="a"), line(key="b"), line(key="a")], "line 3: key: 'a' is also in line 1"),
        ([line(question_id=0), line(question_id=0)], "line 2: question_id: '0' is also in line 1"),
        ([line(key=["a"])], "line 1: key: ['a'] must be text"),
        ([line(category=4)], "line 1: category: 4 must be text"),
        ([line(strength="high")], "line 1: strength: 'high' must be a whole number"),
    ],
)
def test_bad_lines_are_told_in_one_line_and_nothing_is_written(write, capsys, lines, message):
    path = write(*lines)
    code, written = judge(path)
    assert (code, written) == (2, None)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err
    assert [file.name for file in path.parent.iterdir()] == ["answers.jsonl"]


def test_the_same_key_in_another_set_is_another_question(write):
    assert judge(write(line(key="a", set="one"), line(key="a", set="two"), line(), line()))[0] == 0


def test_an_earlier_file_stays_where_the_new_one_cannot_be_made(write):
    path = write(line())
    assert judge(path)[0] == 0
    code, lines = judge(write(line(WRONG), {"answer": ""}))
    assert (code, len(lines), lines[0]["correct"]) == (2, 1, True)


def test_files_that_cannot_be_read_or_written_are_named(write, tmp_path, capsys):
    path = write(line())
    before = path.read_bytes()
    link, same = tmp_path / "link.jsonl", tmp_path / "same.jsonl"
    link.symlink_to(path)
    os.link(path, same)
    for out in (path, link, same, tmp_path / "x" / ".." / "answers.jsonl"):
        assert main(["score", str(path), "--out", str(out)]) == 2
        assert "--out: " in capsys.readouterr().err
    assert main(["score", str(path), "--out", str(tmp_path)]) == 2
    assert "is a folder; name a file" in capsys.readouterr().err
    assert main(["score", str(path), "--out", str(path / "out.jsonl")]) == 2
    assert "out: cannot be written" in capsys.readouterr().err
    assert main(["score", str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "out.jsonl")]) == 2
    assert "none.jsonl: predictions: cannot be read (No such file" in capsys.readouterr().err
    assert main(["score", str(tmp_path), "--out", str(tmp_path / "out.jsonl")]) == 2
    assert "predictions.jsonl: predictions: cannot be read" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert not (tmp_path / "out.jsonl").exists()


def test_the_folder_of_a_run_stands_for_its_answers(write):
    path = write(line(), name="predictions.jsonl")
    out = path.parent / "scored" / "out.jsonl"
    assert main(["score", str(path.parent), "--out", str(out)]) == 0
    assert out.is_file()


def test_the_options_name_all_parsers():
    assert tuple(PARSERS) == score._PARSERS


def test_a_stop_leaves_no_file(tmp_path):
    pipe, out = tmp_path / "pipe", tmp_path / "out.jsonl"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "kvg.cli.kvg_data", "score", str(pipe), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with pipe.open("w") as stream:  # opens when the other side does
        stream.write(json.dumps(line()) + "\n")
        stream.flush()
        deadline = time.monotonic() + 60
        while not out.with_name("out.jsonl.partial").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "kvg-data: interrupted\n")
    assert list(tmp_path.iterdir()) == [pipe]


def test_without_out_the_figures_are_printed_and_no_file_is_written(write, capsys):
    path = write(line(RIGHT), line(WRONG), "", line("no"))
    assert main(["score", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "answers by matched pattern: none: 1, 1: 2" in printed
    assert "3/3" in printed  # of the progress bar
    assert list(path.parent.iterdir()) == [path]
