"""Tables and charts of runs made by hand."""

from __future__ import annotations

import math

from kvg.report.charts import ChartGroup, ChartLine, bar_chart, dot_chart, line_chart, nice_ticks
from kvg.report.naming import looks
from kvg.report.results import ReportContext, results_of, run_facts
from kvg.report.run_section import runs_section
from kvg.report.sections import (
    accuracy_section,
    artifact_section,
    choice_section,
    curve_section,
)
from kvg.report.signature_sections import signature_sections
from kvg.report.tables import Cell
from tests.report.balance import parsed


def rows_of(table):
    """Rows by what stands first in them, as text."""
    return {text(row[0]): [text(cell) for cell in row[1:]] for row in table.rows}


def text(cell):
    return cell.text if isinstance(cell, Cell) else cell


def estimate(value, low, high, n=10):
    return {"n": n, "value": value, "low": low, "high": high}


def test_accuracies_of_two_runs(make_case):
    first = [make_case(f"k{n}", right=n < 5) for n in range(20)]
    second = [make_case(f"k{n}", right=n < 15, category="dog" if n < 10 else "bird") for n in range(10, 20)]
    runs = {"a": first, "b": [*second, make_case("d", category="dog", split="unseen", knowledge=None)]}
    look = looks(runs)
    section = accuracy_section(results_of(runs, ReportContext(), 0), look)
    rows = rows_of(section.tables[0])
    assert rows["all cases"] == ["11–20", "25.0", "54.5"]  # 5 of 20; 5 + 1 of 11
    assert rows["mean of categories"] == ["", "–", "75.0"]  # the second: 5 of 10 birds, 1 of 1 dog
    assert rows["unseen"] == ["1", "–", "100.0"]
    assert rows["known"] == ["10–20", "25.0", "50.0"]
    assert rows["dog"] == ["1", "–", "100.0"]
    for chart in ("<div" + part for part in str(section.charts).split("<div")[1:]):
        parsed(chart)


def choice(make_line, key, right, **fields):
    options = ["Merlin", "Hobby", "Kestrel", "Osprey"]
    line = make_line(key, answer="A" if right else "B", options=options, **fields)
    return {**{name: line[name] for name in line if name not in ("gt_bbox", "objects", "target")}, "right": 0}


def test_choices_in_the_form_of_the_papers_table(make_line):
    from kvg.evaluation.records.prediction import Prediction

    lines = [choice(make_line, f"x{n}", n < 1, set="aircraft") for n in range(4)]
    lines += [choice(make_line, f"y{n}", n < 6, set="dogs") for n in range(8)]
    lines.append({**choice(make_line, "z", False, set="dogs"), "answer": "no idea"})
    runs = {"mine": [Prediction.from_line(line, "here") for line in lines]}
    results = results_of(runs, ReportContext(), 0)
    section = choice_section(results, looks(runs))
    assert [text(head) for head in section.tables[0].heads] == [
        "",
        "aircraft",
        "dogs",
        "average",
        "cases",
        "unparsed %",
    ]
    rows = rows_of(section.tables[0])
    # 1 of 4; 6 of 9; their mean; one of 13 cannot be read.
    assert rows["mine"] == ["25.0", "66.7", "45.8", "13", "7.7"]
    assert rows["chance level"] == ["25.0", "25.0", "25.0", "", ""]
    assert accuracy_section(results, looks(runs)) is None
    assert results["mine"]["signatures"] is None


def test_disturbed_pictures_as_curves_with_intervals(make_case):
    plain = [make_case(f"k{n}", right=n < 8) for n in range(10)]
    blurred = [
        make_case(f"k{n}", right=n < 8 - 2 * strength, artifact="blur", strength=strength)
        for strength in (1, 3)
        for n in range(10)
    ]
    runs = {"mine": plain + blurred}
    section = artifact_section(results_of(runs, ReportContext(), 0), looks(runs))
    heads = [text(head) for head in section.tables[0].heads]
    assert heads == ["", "strength 0", "strength 1", "strength 3"]
    cells = section.tables[0].rows[1][1:]
    assert [cell.text for cell in cells] == ["80.0", "60.0", "20.0"]
    assert [cell.small.partition("\n")[0] for cell in cells[1:]] == ["-20.0", "-60.0"]
    assert cells[2].kind == "bad"
    parsed(section.charts)
    assert section.charts.count('class="band"') == 1
    # Points stand at 0, 1 and 3 of 3, from 44 to 350.
    assert 'points="44.0,48.8 146.0,85.6 350.0,159.2"' in section.charts
    plain_only = artifact_section(results_of({"mine": plain}, ReportContext(), 0), looks(runs))
    assert plain_only is None


def test_what_a_run_was_asked_read_and_left_out(make_case):
    cases = [
        make_case("k0", num_tokens=10, finish_reason="stop"),
        make_case("k1", answer="nothing", num_tokens=30, finish_reason="length"),
        make_case("k2", box=[100, 100, 400, 400], parser="published-v3", pattern=4, mode=None),
    ]
    record = {
        "num_bad": 2,
        "bad": ["row 7: image: cannot be opened"],
        "settings": {"mode": "direct", "model": {"dtype": "bf16"}},
    }
    facts = run_facts(cases, record)
    assert (facts["unparsed"], facts["cut_off"], facts["modes"]) == (1, 1, {"direct": 2})
    assert facts["parsers"] == {"strict": 2, "published-v3": 1}
    results = results_of({"mine": cases}, ReportContext(records={"mine": record}), 0)
    section = runs_section(results, looks(["mine"]))
    row = rows_of(section.tables[0])["mine"]
    assert row[:4] == ["direct", "strict, published-v3", "3", "3"]
    assert row[5:] == ["1 (33.3%)", "1", "20", "2"]
    assert section.tables[1].rows[0][1] == "row 7: image: cannot be opened"
    assert rows_of(section.tables[2]) == {"settings.mode": ["direct"], "settings.model.dtype": ["bf16"]}


def test_patterns_that_read_the_answers(make_case):
    cases = [make_case(f"k{n}", box=[1, 1, 9, 9], parser="published-v3", pattern=n % 3) for n in range(5)]
    section = runs_section(results_of({"mine": cases}, ReportContext(), 0), looks(["mine"]))
    table = section.tables[1]
    assert [text(head) for head in table.heads] == ["", "none", "pattern 1", "pattern 2"]
    assert rows_of(table)["mine"] == ["2", "2", "1"]


def test_learning_curves_of_runs():
    curves = {
        "cot_sft": {"train/loss": [(i, 1 / (i + 1)) for i in range(60)], "val/iou_acc": [(30, 0.5), (60, 0.6)]},
        "cot_sft_grpo": {"train/reward/total": [(0, 1.0)], "train/loss": [(0, 0.0)], "train/kl": [(0, math.nan)]},
    }
    section = curve_section(curves, looks(curves))
    parsed(section.charts)
    assert section.charts.count("<figure") == 3  # the loss, the accuracy, the reward
    assert "KL to the stage-1 model" not in section.charts  # nothing but nan
    assert section.tables[0].folded
    assert ["val/iou_acc", "2", "60", "0.5", "0.6"] in [list(row) for row in section.tables[0].rows]
    assert curve_section({}, {}) is None


def test_signatures_say_what_was_found(make_case):
    think = "<think>Conclusion: {} is the Merlin.</think><answer>{}</answer>"
    right, wrong = "(100,100),(400,400)", "(600,600),(900,900)"
    cases = [make_case(f"r{n}", answer=think.format(right, right), num_tokens=40) for n in range(30)]
    cases += [make_case(f"l{n}", answer=think.format(wrong, right), num_tokens=40) for n in range(20)]
    cases += [make_case(f"w{n}", answer=wrong, knowledge="unknown", num_tokens=9) for n in range(30)]
    runs = {"mine": cases}
    found = results_of(runs, ReportContext(), 0)["mine"]["signatures"]
    sections = {section.title: section for section in signature_sections({"mine": found}, looks(runs))}
    reasoning = sections["Reasoning and box"]
    assert reasoning.verdicts[0].kind == "bad"
    assert reasoning.verdicts[0].text.startswith("sign: 40.0% (")  # 20 of 50 right boxes
    row = list(map(text, reasoning.tables[0].rows[0]))
    assert row[1:7] == ["boxes", "all", "30", "0", "20", "0"]
    gap = list(map(text, sections["Known and unknown entities"].tables[0].rows[0]))
    assert gap[1:6] == ["all", "80", "100.0", "0.0", "+100.0"]
    lengths = list(map(text, sections["Unparsed answers, length and diversity"].tables[0].rows[0]))
    assert lengths[1:4] == ["40", "9", "31"]
    assert lengths[5] == "0.0"
    confusions = sections["Confusions"]
    assert list(confusions.tables[-1].rows[1]) == ["Merlin", "Hobby", "30", "80", "37.5"]
    assert "Position" in sections


def test_bars_stand_where_the_accuracy_says():
    look = looks(["a", "b"])
    values = {"a": estimate(0.75, 0.5, 1.0), "b": estimate(0.25, 0.0, 0.5)}
    chart = bar_chart([ChartGroup("seen", values, "known"), ChartGroup("unseen", {})], look)
    parsed(chart)
    # The plot is 300 - 16 - 40 = 244 high: three quarters are 183.
    assert 'height="183.0"' in chart
    assert "a, seen known: 75.0% (50.0 to 100.0), n = 10" in chart
    assert "unseen" not in chart
    assert bar_chart([], look) == ""
    assert bar_chart([ChartGroup("all", {"a": values["a"]})], look) == ""  # one bar says no more than its number


def test_dots_stand_where_the_accuracy_says():
    look = looks(["a"])
    chart = dot_chart([ChartGroup("<bird>", {"a": estimate(0.5, 0.25, 0.75)}), ChartGroup("none", {})], look)
    parsed(chart)
    # From 150 to 760 - 18 = 742.
    assert 'cx="446.0"' in chart
    assert "M298.0 " in chart
    assert "H594.0" in chart
    assert "&lt;bird&gt;" in chart
    assert dot_chart([], look) == ""


def test_lines_reach_from_edge_to_edge():
    chart = line_chart("Loss", [ChartLine("a", "red", [(0, 0.0), (10, 1.0)])], share=True)
    parsed(chart)
    # Left at 44, right at 360 - 10; 0 at the bottom, 220 - 24, and 1 at the top, 12.
    assert 'points="44.0,196.0 350.0,12.0"' in chart
    assert line_chart("Loss", [ChartLine("a", "red", [(0, math.nan)])]) == ""
    parsed(line_chart("flat", [ChartLine("a", "red", [(0, 0.0)])]))


def test_ticks():
    assert nice_ticks(-0.02, 0.03) == [-0.02, 0.0, 0.02]
    assert nice_ticks(0, 120) == [0, 50, 100]
    assert nice_ticks(3, 3) == [3, 4]


def test_runs_have_colours_of_their_own():
    found = looks(["base", *(f"seed {n}" for n in range(7))])
    assert len({look.colour for look in found.values()}) == 8
    assert looks(["cot_sft"])["cot_sft"].title == "CoT-SFT"
    assert len(looks([f"r{n}" for n in range(30)])) == 30
