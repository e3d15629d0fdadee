from __future__ import annotations

import re
from html.parser import HTMLParser

from kvg.report.case_card import case_card
from kvg.report.cases import STAGES
from kvg.report.charts import Line, bar_chart, line_chart, nice_ticks
from kvg.report.figures import gains, rows
from kvg.report.page import Contents, page
from kvg.report.recall import recall_rows

VOID = {"meta", "br", "image", "rect", "path", "circle", "polyline"}


class Balance(HTMLParser):
    """Fails at the first tag that closes what is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.counts: dict[str, int] = {}

    def handle_starttag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def parsed(text: str) -> Balance:
    balance = Balance()
    balance.feed(text)
    assert balance.open == []
    return balance


def contents(make_case, make_sample) -> Contents:
    text = (
        "<think>Plan: the Hoopoe is grey, plain, crest, broad. Look: 1 <|box_start|>(0,0),(178,357)<|box_end|> grey, "
        "plain, crest, slim. Compare: 1 yes. Conclusion: object 1.</think><answer><|box_start|>(0,0),(178,357)"
        "<|box_end|></answer>"
    )
    cases = {
        stage: [make_case(f"{stage}{i}", right=i % 2 == 0, text=text if "cot" in stage else "?") for i in range(4)]
        for stage in STAGES
    }
    samples = {case.key: make_sample(case.key) for answered in cases.values() for case in answered}
    curves = {
        "cot_sft": {"train/loss": [(i, 1 / (i + 1)) for i in range(60)], "val/iou_acc": [(30, 0.5), (60, 0.6)]},
        "cot_sft_grpo": {"train/reward/total": [(0, 1.0)], "train/loss": [(0, 0.0)], "train/kl": [(0, float("nan"))]},
    }
    facts = {"seed": "0"}
    return Contents(rows(cases, 0), gains(cases, 0), recall_rows(cases, samples), curves, cases, samples, facts)


def test_the_page_is_whole_and_needs_nothing_else(make_case, make_sample):
    text = page(contents(make_case, make_sample))
    found = parsed(text)
    assert found.counts["image"] == 16
    assert found.counts["table"] == 2
    assert text.count("data:image/png;base64,") == 16
    assert not re.findall(r"https?:|<link|<script|@import|url\(", text)
    assert "prefers-color-scheme: dark" in text
    for name in STAGES.values():
        assert name in text
    # The loss of stage 2 is near 0 by construction and is no learning curve.
    assert re.search(r"Loss of supervised training</b><span class=key><span><i [^>]*></i>CoT-SFT</span></span>", text)
    assert "Reward and its parts" in text
    assert "KL to the stage-1 model" not in text  # nothing but nan


def test_a_page_of_one_stage_and_nothing_more(make_case):
    cases = {"base": [make_case("a")]}
    text = page(Contents(rows(cases, 0), gains(cases, 0)))
    found = parsed(text)
    assert found.counts["table"] == 1
    assert "Learning curves" not in text
    assert "Knowledge at work" not in text


def test_a_card_shows_what_was_recalled(make_case, make_sample):
    said = "<think>Plan: the Hoopoe is grey, plain, crest, broad. Look: 1</think><answer>none</answer>"
    card = case_card(make_case("a", right=False, text=said), make_sample("a"))
    parsed(card)
    assert "✗ IoU 0.00" in card
    assert "card not recalled.</span> It is grey, plain, crest, <s>slim</s>." in card
    assert "<em>Plan:</em> the Hoopoe" in card
    assert "Find and give the bounding box of</span> <b>Hoopoe</b>" in card
    good = case_card(make_case("a", text=said.replace("broad", "slim")), make_sample("a"))
    assert "✓ card recalled" in good
    silent = case_card(make_case("a", right=False, box_px=None, text="x" * 5000), make_sample("a"))
    assert "no box" in silent
    assert "recalled" not in silent
    assert silent.count("x" * 700) == 1
    assert "x" * 701 not in silent


def test_what_a_model_or_a_name_says_is_no_markup(make_case, make_sample):
    card = case_card(make_case("a", entity="<b>bird", text="</p><script>alert(1)</script>"), make_sample("a"))
    parsed(card)
    assert "<script>" not in card
    assert "&lt;b&gt;bird" in card


def test_bars_stand_where_the_accuracy_says(make_case):
    cases = {"base": [make_case(f"k{i}", right=i < 3) for i in range(4)]}
    chart = bar_chart(rows(cases, 0), STAGES)
    parsed(chart)
    # The plot is 300 - 16 - 40 = 244 high: three quarters are 183.
    assert 'height="183.0"' in chart
    assert "Base, seen, known: 75.0%" in chart
    assert bar_chart([], STAGES) == ""


def test_lines_reach_from_edge_to_edge():
    chart = line_chart("Loss", [Line("a", "red", [(0, 0.0), (10, 1.0)])], share=True)
    parsed(chart)
    # Left at 44, right at 360 - 10; 0 at the bottom, 220 - 24, and 1 at the top, 12.
    assert 'points="44.0,196.0 350.0,12.0"' in chart
    assert line_chart("Loss", [Line("a", "red", [(0, float("nan"))])]) == ""
    parsed(line_chart("flat", [Line("a", "red", [(0, 0.0)])]))


def test_ticks():
    assert nice_ticks(-0.02, 0.03) == [-0.02, 0.0, 0.02]
    assert nice_ticks(0, 120) == [0, 50, 100]
    assert nice_ticks(3, 3) == [3, 4]
