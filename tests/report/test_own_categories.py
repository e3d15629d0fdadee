"""Categories that KVG-Bench does not have get the same figures, tables and charts as its own."""

from __future__ import annotations

from kvg.evaluation.comparison.matching import GROUPINGS
from kvg.evaluation.comparison.runs import compare_runs
from kvg.evaluation.figures.summary import summary
from kvg.report.naming import looks
from kvg.report.results import ReportContext, results_of
from kvg.report.sections import accuracy_section

OWN, PUBLISHED = ("coin", "stamp"), ("aircraft", "bird")


def runs_of(make_case, first, second):
    """Two runs on ten cases of each category: 5 and 2 right before, 8 and 6 after."""
    right = {"before": (5, 2), "after": (8, 6)}
    return {
        run: [
            make_case(f"{category}{n}", right=n < num, category=category)
            for category, num in zip((first, second), nums, strict=True)
            for n in range(10)
        ]
        for run, nums in right.items()
    }


def test_a_run_with_own_categories_has_the_figures_of_one_with_published_ones(make_case):
    own, published = (runs_of(make_case, *names) for names in (OWN, PUBLISHED))
    rename = dict(zip(OWN, PUBLISHED, strict=True))

    found = summary(own["before"])
    assert (found["iou_acc/coin"], found["iou_acc/stamp"], found["n/stamp"]) == (0.5, 0.2, 10.0)
    renamed = {"/".join(rename.get(part, part) for part in name.split("/")): value for name, value in found.items()}
    assert renamed == summary(published["before"])

    sections = [accuracy_section(results_of(runs, ReportContext(), 0), looks(runs)) for runs in (own, published)]
    names = [[str(row[0]) for table in section.tables for row in table.rows] for section in sections]
    assert {"coin", "stamp", "mean of categories"} <= set(names[0])
    assert [rename.get(name, name) for name in names[0]] == names[1]
    assert all(name in str(sections[0].charts) for name in OWN)

    differences = [
        compare_runs({run: [cases] for run, cases in runs.items()}, GROUPINGS).differences for runs in (own, published)
    ]
    assert [{**row, "name": rename.get(row["name"], row["name"])} for row in differences[0]] == differences[1]
    by_category = {row["name"]: row["difference"]["value"] for row in differences[0] if row["by"] == "category"}
    assert [round(by_category[name], 12) for name in OWN] == [0.3, 0.4]
