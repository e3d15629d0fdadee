"""Which boxes count, how two opinions meet, what is doubtful, and what a reviewer's ticks do; numbers by hand."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from kvg.catalogue.box_rules import (
    RULES,
    BoxSettings,
    broken_rule,
    model_name,
    named_fault,
    read_box,
    sent_size,
    wording,
)
from kvg.catalogue.boxing import (
    Finding,
    boxed_entries,
    by_doubt,
    conclude,
    is_doubtful,
    read_findings,
    rule_margin,
    with_boxes,
)
from kvg.catalogue.cutting import overlap
from kvg.catalogue.entry import Entry, to_line
from kvg.catalogue.project import CatalogueProject
from kvg.config.settings import settings_of
from kvg.errors import ConfigError, DataError
from kvg.text.box_codec import AbsoluteCodec, RelativeCodec

SETTINGS = BoxSettings()
STRANGE = 'a\tb "c" <d> & \U0001f989\ud83e.jpg'  # the last but one is half a character, as in names that are no text


@pytest.mark.parametrize(
    ("box", "rule"),
    [
        ((0, 0, 20, 10), ""),  # 200 of 20,000 pixels are 1% to the dot
        ((0, 0, 19, 10), "small"),
        ((2, 1, 198, 99), "border"),  # a hundredth of each side is left: 2 and 1 pixels
        ((3, 1, 198, 99), ""),  # on the left it is more
        ((3, 0, 200, 100), "large"),  # 98.5%
        ((4, 0, 200, 100), ""),  # 98% to the dot
        ((10, 10, 171, 30), "thin"),  # 161 to 20
        ((10, 10, 170, 30), ""),  # 160 to 20 are 8 to 1
        ((10, 5, 20, 95), "thin"),  # 90 to 10, upright
        ((50, 10, 50, 30), "empty"),
        ((60, 10, 50, 30), "empty"),  # corners that are swapped say nothing
    ],
)
def test_a_box_that_cannot_be_right_is_refused_by_its_rule(box, rule):
    assert broken_rule(box, 200, 100, SETTINGS)[0] == rule


def test_an_answer_is_read_in_pixels_of_the_stored_picture():
    size = sent_size(1000, 500, 401_408)
    assert (size.resized_width, size.resized_height) == (896, 448)
    assert read_box("It is at (100,200),(500,900)", size, RelativeCodec(), SETTINGS) == (100, 100, 500, 450)
    box = read_box('{"bbox_2d": [224, 112, 448, 224]}', size, AbsoluteCodec(), SETTINGS)
    assert box == (250, 125, 500, 250)  # 224 of 896 is a quarter of 1000, 112 of 448 one of 500


@pytest.mark.parametrize(
    ("stored", "sent"),
    [
        ((896, 448), (896, 448)),  # it stays as it is
        ((100, 100), (112, 112)),  # 3.57 tokens are 4
        ((30, 30), (56, 56)),  # the least that Qwen-VL takes
        ((4000, 40), (4004, 28)),  # 142.86 and 1.43 tokens
        ((6000, 4000), (756, 504)),  # shrunk by 7.73: 27.7 and 18.5 tokens
    ],
)
def test_sizes_are_multiples_of_a_token_within_the_budget(stored, sent):
    size = sent_size(*stored, 401_408)
    assert (size.resized_width, size.resized_height) == sent


@pytest.mark.slow  # transformers takes its time to be imported
def test_a_qwen_vl_processor_leaves_these_sizes_alone():
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    rng = random.Random(0)
    for number in range(2000):
        multiple = (28, 32)[number % 2]
        size = sent_size(rng.randrange(20, 4000), rng.randrange(20, 4000), 401_408, multiple)
        sent = size.resized_height, size.resized_width
        assert smart_resize(*sent, multiple, 4 * multiple**2, 401_408) == sent


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        ("I see a Wren.", "unreadable"),
        ("the box is too thin: (0, 1), 5", "unreadable"),  # a model that speaks like a rule
        ("(500,500),(500,900)", "empty"),
        ("(0,0),(1000,1000)", "border"),
        ("(0,0),(50,50)", "small"),
        ("(0,0),(1000,20)", "thin"),
    ],
)
@pytest.mark.parametrize("worded", ["{}", "photos/a.jpg: try 2 of 2: {}"])
def test_reasons_are_counted_however_they_are_passed_on(answer, rule, worded):
    with pytest.raises(DataError) as caught:
        read_box(answer, sent_size(200, 200, 401_408), RelativeCodec(), replace(SETTINGS, min_area=0.004))
    found, reason = named_fault(["an older one", worded.format(caught.value)])
    assert found == rule
    assert reason.startswith(RULES[rule])


def test_what_is_no_rule_is_unanswered():
    assert named_fault(["the server refused it: 400"]) == ("unanswered", "the server refused it: 400")
    assert named_fault([]) == ("unanswered", "no answer came")


def test_iou():
    assert overlap((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert overlap((0, 0, 10, 10), (5, 5, 15, 15)) == pytest.approx(25 / 175)
    assert overlap((0, 0, 10, 10), (10, 0, 20, 10)) == 0
    assert overlap((0, 0, 10, 10), (5, 5, 5, 9)) == 0


def test_two_opinions_have_to_agree_and_the_first_one_is_kept():
    finding, one = Finding("s", "r", "Wren", "00"), (0, 0, 100, 100)
    assert conclude(finding, [one], SETTINGS) == replace(finding, box_px=one)
    assert conclude(finding, [one, (0, 0, 100, 70)], SETTINGS) == replace(finding, box_px=one, iou=0.7)
    third = conclude(finding, [one, (0, 0, 100, 90), (0, 0, 100, 69)], SETTINGS)  # the worst of them decides
    assert (third.box_px, third.iou, third.rule) == (None, 0.69, "disagreement")
    assert third.reason == "two boxes overlap by 0.69 only, less than agreement 0.7"


def entry(ref: str, box=None, origin: str = "", size=(1000, 1000), **values) -> Entry:
    known = {"entity": "Wren", "category": "bird", "sha256": ref.encode("utf-8", "surrogatepass").hex()[:8]}
    return Entry("s", ref, width=size[0], height=size[1], fingerprint="0" * 16, box_px=box, box_from=origin,
                 **{**known, **values})  # fmt: skip


def test_room_before_a_rule():
    # A tenth of the picture is half way from a hundredth to all of it, by orders of magnitude.
    assert rule_margin(entry("a", (0, 0, 400, 250)), SETTINGS) == pytest.approx(0.5)
    assert rule_margin(entry("b", (0, 0, 700, 700)), SETTINGS) == pytest.approx(
        0.5
    )  # 49% is half of 98%, and 0.85 from 1%
    # 640 to 80: at the limit of 8 to 1.
    assert rule_margin(entry("c", (0, 0, 640, 80)), SETTINGS) == pytest.approx(0)
    assert rule_margin(entry("d", (0, 0, 200, 400)), SETTINGS) == pytest.approx(0.4515, abs=1e-4)  # 8%: 1 - 1.0969 / 2
    assert rule_margin(entry("e", (0, 0, 1000, 1000), "alpha"), SETTINGS) == 1  # cropped, as cut-outs are


def test_the_most_doubtful_come_first():
    plain, large = (0, 0, 500, 400), (0, 0, 950, 950)
    pairs = [
        (entry("sure", plain), 0.95),
        (entry("alone", plain), None),
        (entry("torn", plain), 0.71),
        (entry("large alone", large), None),
        (entry("large", large), 0.95),
    ]
    assert [e.ref for e, _ in by_doubt(pairs, SETTINGS)] == ["torn", "large", "sure", "large alone", "alone"]
    # (1 + 0.7) / 2 = 0.85
    assert [e.ref for e, iou in pairs if is_doubtful(e, iou, SETTINGS)] == ["torn", "large alone", "large"]
    assert is_doubtful(entry("x", plain), 0.849, SETTINGS)
    assert not is_doubtful(entry("x", plain), 0.85, SETTINGS)


def test_names_stay_names():
    asked = entry("a", entity="{category} \\1", category="bird")
    assert wording("the {category} {entity}", asked) == "the bird {category} \\1"
    assert model_name({"class_path": "a.B", "init_args": {"model": "alpha"}}) == "B"  # alpha means a cut-out
    local = {"class_path": "a.Qwen2VL", "init_args": {"checkpoint": "runs/x"}}
    assert model_name({"class_path": "a.B", "init_args": {"backbone": local}}) == "runs/x"
    assert "<|object_ref_start|>{entity}<|object_ref_end|>" in SETTINGS.question


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"samples": 0}, "box.samples: 0 is not a whole number of at least 1"),
        ({"max_attempts": 1.5}, "box.max_attempts: 1.5"),
        ({"max_pixels": 3000}, "box.max_pixels: 3000 is not a whole number of at least 3136"),
        ({"max_pixels": 4000, "size_multiple": 32}, "box.max_pixels: 4000 is not a whole number of at least 4096"),
        ({"size_multiple": 0}, "box.size_multiple: 0"),
        ({"agreement": 70}, "box.agreement: 70 is not an IoU"),
        ({"min_area": 0.99}, "0.99 and 0.98 are not 0 < min_area < max_area <= 1"),
        ({"min_area": "small"}, "box.min_area: 'small' should be a number"),
        ({"max_aspect": 1}, "box.max_aspect: 1 allows squares"),
        ({"review": "none"}, "box.review: 'none' is neither"),
        ({"question": "Where is it?"}, "box.question: 'Where is it.' lacks a placeholder"),
        ({"second_question": ""}, "box.second_question: '' lacks a placeholder"),
        ({"aks": {}}, "box.aks: is unknown"),
    ],
)
def test_settings_that_cannot_work(values, message):
    with pytest.raises(ConfigError, match=message):
        settings_of(BoxSettings, values, "box")


@pytest.fixture
def project(tmp_path):
    return CatalogueProject({"s": {"class_path": "kvg.catalogue.folders.ImageFolder"}}, out=tmp_path)


def write(project, entries, findings, **ticks):
    (project.out / "catalogue.jsonl").write_text("".join(f"{to_line(e)}\n" for e in entries))
    if findings:
        (project.out / "boxes.jsonl").write_text("".join(f"{f.line()}\n" for f in findings))
    for name, lines in ticks.items():
        (project.out / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def found(e: Entry, box, **values) -> Finding:
    return Finding(e.source, e.ref, e.entity, e.sha256, box, "model", **values)


def test_boxes_of_models_join_the_catalogue(project, caplog):
    given, bare, strange = entry("given", (1, 2, 3, 4), "given"), entry("bare"), entry(STRANGE)
    refused, changed, renamed = entry("refused"), entry("changed"), entry("renamed")
    findings = [
        found(given, (9, 9, 10, 10)),  # somebody has given a box since
        found(strange, (5.5, 6, 7, 8), iou=0.8),
        found(refused, None, iou=0.2, rule="disagreement", reason="..."),
        found(replace(changed, sha256="other"), (5, 6, 7, 8)),
        found(replace(renamed, entity="Robin"), (5, 6, 7, 8)),
    ]
    write(project, [given, bare, strange, refused, changed, renamed], findings)
    assert list(boxed_entries(project)) == [
        given, bare, replace(strange, box_px=(5.5, 6, 7, 8), box_from="model"), refused, changed, renamed,
    ]  # fmt: skip
    assert dict((e.ref, iou) for e, iou in with_boxes(project))[STRANGE] == 0.8
    assert "2 pictures have changed since their boxes were made, the first: 'changed'" in caplog.text
    assert read_findings(project.out)["s", "refused"].rule == "disagreement"


def test_what_has_been_ticked_is_dropped(project):
    entries = [entry(ref) for ref in ("good", "bad", "again", STRANGE, "by hand", "taken back", "late")]
    box = (5.5, 6, 70, 80.25)
    ticks = [{"source": "s", "ref": e.ref, "box_px": box, "bad": True, "saved": 2} for e in entries]
    ticks[2]["box_px"] = [0, 0, 9, 9]  # it has got another box since
    ticks[4] = {"source": "s", "ref": "by hand"}  # whatever its box is
    older = [{**ticks[6], "bad": False, "saved": 1}]  # read later, said before
    write(
        project, entries, [found(e, box) for e in entries], bad_boxes=ticks[1:],
        **{"bad_boxes-002": [{**ticks[5], "bad": False, "saved": 3}], "bad_boxes-003 (1)": older},
    )  # fmt: skip
    assert [e.ref for e in boxed_entries(project)] == ["good", "again", "taken back"]


def test_before_boxes_were_asked_for(project):
    write(project, [entry("a"), entry("b", (1, 2, 3, 4), "alpha")], [])
    assert [e.box_px for e in boxed_entries(project)] == [None, (1, 2, 3, 4)]


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"ref": "a"}', b'{"source": "s", "ref": "a", "box_px": [1]}', b"\xff"])
def test_a_damaged_file_of_ticks_says_where(project, line):
    write(project, [entry("a")], [])
    (project.out / "bad_boxes.jsonl").write_bytes(b'{"source": "s", "ref": "b"}\n' + line + b"\n")
    with pytest.raises(DataError, match=r"bad_boxes.jsonl.*save it from the page of review again"):
        list(boxed_entries(project))
