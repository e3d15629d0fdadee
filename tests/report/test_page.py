from __future__ import annotations

import html
import re

from kvg.report.case_card import CardPicture, case_card
from kvg.report.gallery import questions_of
from kvg.report.naming import looks
from kvg.report.pictures import picture_of
from kvg.report.report import chosen_gallery, make_report
from kvg.report.results import ReportContext
from kvg.shards.writer import ShardWriter
from tests.report.balance import parsed

STAGES = ("base", "direct_sft", "cot_sft", "cot_sft_grpo")
PLAN = "<think>Plan: the Merlin is grey, plain, crest, broad. Look: 1</think><answer>{}</answer>"
NOTED = [
    {"entity": "Merlin", "box": [100, 100, 400, 400], "note": "grey, plain, crest, slim"},
    {"entity": "Hobby", "box": [600, 600, 900, 900], "note": "red, plain, crest, slim"},
]


def test_the_page_is_whole_and_needs_nothing_else(make_case, make_sample, tmp_path):
    with ShardWriter(tmp_path / "set") as writer:
        for n in range(8):
            writer.write(make_sample(f"k{n}", knowledge="known" if n % 2 else "unknown"))
    runs = {
        stage: [
            make_case(f"k{n}", right=n < 2 * (s + 1), knowledge="known" if n % 2 else "unknown", objects=NOTED)
            for n in range(8)
        ]
        for s, stage in enumerate(STAGES)
    }
    curves = {"cot_sft": {"train/loss": [(0, 1.0), (9, 0.5)]}}
    pairs = [("base", "cot_sft"), ("cot_sft", "cot_sft_grpo")]
    gallery = chosen_gallery(runs, [("", str(tmp_path / "set"))], 6, 0)
    report = make_report(runs, pairs, gallery, ReportContext(curves=curves), {"seed": "0"}, seed=0)
    text = report.html()
    found = parsed(text)
    assert found.counts["article"] == found.counts["img"] == 6
    assert len(re.findall(r"data:image/png;base64,", text)) == 1  # all of them show the same
    assert not re.findall(r"https?:|<link|@import|url\(", text)
    assert found.counts["script"] == 1
    assert "prefers-color-scheme: dark" in text
    assert "Base, Direct SFT, CoT-SFT and CoT-SFT + GRPO compared" in text
    for anchor in re.findall(r'<a href="#(\w+)"', text):
        assert f"<section id={anchor}>" in text or f'<section id="{anchor}">' in text
    assert text == report.html()


def test_a_page_of_one_run_and_nothing_more(make_case):
    runs = {"mine": [make_case("a"), make_case("b", right=False)]}
    report = make_report(runs, [], chosen_gallery(runs, [], 10, 0), ReportContext(), {}, seed=0)
    text = report.html()
    found = parsed(text)
    assert "img" not in found.counts
    assert found.counts["article"] == 2
    assert "Evaluation of mine" in text
    assert "<b>50.0 <small>% (" in text  # in the place of differences
    assert "Learning curves" not in text
    assert "Differences" not in text
    none = make_report(runs, [], chosen_gallery(runs, [], 0, 0), ReportContext(), {}, seed=0).html()
    assert "article" not in parsed(none).counts
    assert "id=cases" not in none


def test_markdown_holds_what_the_page_holds(make_case):
    runs = {run: [make_case(f"k{n}", right=n % 3 < num) for n in range(9)] for num, run in ((1, "a"), (2, "b"))}
    report = make_report(runs, [("a", "b")], chosen_gallery(runs, [], 9, 0), ReportContext(), {}, seed=0)
    page, text = report.html(), report.markdown()
    rows = re.findall(r"<tr>(<td.*?)</tr>", page)
    cells = [first_words(cell) for row in rows for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)]
    heads = [n for n, line in enumerate(text.splitlines()) if line.startswith("|--")]
    lines = [
        line
        for n, line in enumerate(text.splitlines())
        if line.startswith("| ") and "**" not in line and n + 1 not in heads
    ]
    assert len(cells) > 150
    assert cells == [cell.strip().partition(" (")[0] for line in lines for cell in line.strip("|").split("|")]
    for section in (*report.sections, *report.signatures):
        assert f"## {section.title}" in text


def first_words(cell):
    """What a field says, without what stands small below it."""
    return html.unescape(re.sub("<.*?>", "", cell.partition("<small>")[0])).partition(" (")[0]


def card(cases, picture=None, **options):
    question = questions_of({f"r{n}": [case] for n, case in enumerate(cases)})[0]
    made = case_card(question, looks(question.answers), picture, **options)
    parsed(made)
    return made


def test_a_card_shows_what_was_recalled(make_case):
    made = card([make_case(right=False, answer=PLAN.format("(600,600),(900,900)"), objects=NOTED)])
    assert "✗ boxed Hobby" in made
    assert "card not recalled.</span> It is grey, plain, crest, <s>slim</s>." in made
    assert "<em>Plan:</em> the Merlin" in made
    assert "<em>Answer:</em> (600,600),(900,900)" in made
    good = card([make_case(answer=PLAN.format("(100,100),(400,400)").replace("broad", "slim"), objects=NOTED)])
    assert "✓ card recalled" in good
    assert "✓ IoU 1.00" in good
    assert "data-reasoning=right" in good


def test_a_card_says_where_reasoning_points(make_case):
    think = "<think>Conclusion: {} is the Merlin.</think><answer>(100,100),(400,400)</answer>"
    assert "concludes with the target" in card([make_case(answer=think.format("(100,100),(400,400)"))])
    astray = card([make_case(answer=think.format("(600,600),(900,900)"))])
    assert "concludes with another object" in astray
    assert "data-verdict=right data-reasoning=wrong" in astray
    assert "not judged, no concluded object" in card([make_case(answer=think.format("one of them"))])
    assert "data-reasoning=none" in card([make_case()])


def test_what_a_model_or_a_name_says_is_no_markup(make_case):
    made = card([make_case(entity='<b>"bird', category="a'><i>", answer="</p><script>alert(1)</script>")])
    assert "<script>" not in made
    assert "&lt;b&gt;&#34;bird" in made
    assert 'data-category="a&#39;&gt;&lt;i&gt;"' in made


def test_an_answer_without_end_is_cut(make_case):
    made = card([make_case(answer="x" * 50_000)])
    assert "✗ no box" in made
    assert "x" * 3000 + " …" in made
    assert "x" * 3001 not in made


def test_answers_of_several_runs_stand_side_by_side(make_case, make_sample):
    picture = CardPicture(picture_of(make_sample("k0"), "mark"))
    made = card([make_case(), make_case(right=False), make_case(answer="?")], picture)
    assert made.count("<section class=") == 3
    assert made.count('class="answer"') == 2  # the third gave none
    colours = re.findall(r'class="answer"[^>]*style="stroke:(.*?);', made)
    assert colours == ["var(--hue1)", "var(--hue2)"]
    assert 'id="pmark" src="data:image/png' in made
    again = card([make_case()], CardPicture(picture.picture, repeats=True))
    assert 'data-same="pmark"' in again
    assert "base64" not in again
    assert "stroke:var(--answer)" in again  # one run alone: orange
    lost = card([make_case()], CardPicture(picture_of(make_sample("k0", b"\x89PNG\r\n\x1a\nbroken"), "m")))
    assert "picture cannot be opened" in lost


def test_a_question_of_several_choices(make_line):
    from kvg.evaluation.records.prediction import Prediction

    line = make_line(answer="<think>small</think><answer>B</answer>", options=["Merlin", "<Hobby>"])
    line = {**{n: line[n] for n in line if n not in ("gt_bbox", "objects", "target")}, "right": 0}
    made = card([Prediction.from_line(line, "here")])
    assert "Which bird is it?" in made
    assert "✗ B &lt;Hobby&gt;" in made
    assert "<li class=right>Merlin</li><li>&lt;Hobby&gt;</li>" in made
