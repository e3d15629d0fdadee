"""Confusions counted by hand."""

import pytest

from kvg.evaluation.diagnostics.confusion import confusion
from kvg.evaluation.records.prediction import Prediction
from kvg.lab.traits import load_cards, neighbours

BOXES = ([0, 0, 200, 200], [400, 0, 600, 200], [700, 0, 900, 200])
MARKS = {0: "(0,0),(200,200)", 1: "(400,0),(600,200)", 2: "(700,0),(900,200)", "bad": "(0,500),(90,900)", None: "?"}


@pytest.fixture
def ask(make_line):
    """Asks for the first of the names; ``boxed`` is the object answered."""

    def ask(key, boxed, *names, **fields):
        objects = [{"entity": name, "box": box} for name, box in zip(names, BOXES, strict=False)]
        gt = [BOXES[0]]
        return Prediction.from_line(
            make_line(key, entity=names[0], answer=MARKS[boxed], gt_bbox=gt, objects=objects, **fields), "t"
        )

    return ask


def test_pairs_with_the_times_that_both_stood_there(ask):
    cases = [
        ask("a", 1, "Merlin", "Hobby", "Kite"),
        ask("b", 1, "Merlin", "Hobby"),
        ask("c", 2, "Merlin", "Hobby", "Kite"),
        ask("d", 0, "Merlin", "Hobby"),
        ask("e", 1, "Hobby", "Merlin"),
        ask("f", 0, "Kite", "Merlin", "Hobby"),
    ]
    found = confusion(cases, seed=0)
    assert found["pairs"] == [
        {"target": "Merlin", "answered": "Hobby", "num": 2, "together": 4, "share": 0.5},
        {"target": "Hobby", "answered": "Merlin", "num": 1, "together": 1, "share": 1.0},
        {"target": "Merlin", "answered": "Kite", "num": 1, "together": 2, "share": 0.5},
    ]
    assert found["entities"] == [
        {"entity": "Merlin", "n": 4, "right": 1, "most": "Hobby", "num": 2},
        {"entity": "Hobby", "n": 1, "right": 0, "most": "Merlin", "num": 1},
        {"entity": "Kite", "n": 1, "right": 1, "most": "", "num": 0},
    ]
    assert found["n"] == 6
    assert found["look_alikes"] is None  # no entities of the lab


def test_kinds_of_errors(ask, make_line):
    cases = [ask(f"o{i}", 1, "Merlin", "Hobby") for i in range(4)]
    cases += [ask(f"b{i}", "bad", "Merlin", "Hobby") for i in range(3)]
    cases += [ask("u0", None, "Merlin", "Hobby"), ask("alone", "bad", "Merlin"), ask("right", 0, "Merlin", "Hobby")]
    cases += [Prediction.from_line(make_line("nobody", right=False, objects=None), "t")]
    errors = confusion(cases, seed=0)["errors"]
    shares = {name: errors[name]["value"] for name in ("other_object", "no_object", "unparsed", "untold")}
    assert errors["n"] == 10
    assert shares == {"other_object": 0.4, "no_object": 0.3, "unparsed": 0.1, "untold": 0.2}


def test_objects_without_a_name_are_errors_but_no_pairs(ask):
    found = confusion([ask("a", 1, "Merlin", "")], seed=0)
    assert (found["pairs"], found["errors"]["other_object"]["value"]) == ([], 1)


def test_confusions_with_the_look_alike_against_chance(ask):
    card = next(card for card in load_cards() if len(neighbours(card)) == 1)
    (alike,) = neighbours(card)
    far = next(c for c in load_cards() if c.category == card.category and c.traits.distance(card.traits) > 1)
    names, fields = (card.name, alike.name, far.name), {"category": card.category}
    cases = [ask(f"a{i}", 1, *names, **fields) for i in range(28)]  # to the look-alike
    cases += [ask(f"f{i}", 2, *names, **fields) for i in range(12)]  # to the other
    cases += [ask(f"x{i}", 1, card.name, far.name, **fields) for i in range(9)]  # no look-alike there
    cases += [ask("r", 0, *names, **fields)]
    found = confusion(cases, seed=0)
    alikes = found["look_alikes"]
    assert (alikes["n"], alikes["to_look_alike"]["value"], alikes["chance"]) == (40, 0.7, 0.5)
    assert alikes["difference"]["value"] == pytest.approx(0.2)
    assert "look-alikes are confused more often than by chance, +20.0 points" in found["verdict"]
    even = confusion([*cases[:20], *cases[28:40]], seed=0)
    assert "look-alike" not in even["verdict"]


def test_verdicts(ask, make_line):
    assert confusion([ask("a", 0, "Merlin", "Hobby")], 0)["verdict"] == "no sign: there are no errors"
    bad = [ask(f"k{i}", "bad", "Merlin", "Hobby") for i in range(30)]
    assert confusion(bad, 0)["verdict"].startswith("no sign: 0.0% (")
    taken = [ask(f"k{i}", 1, "Merlin", "Hobby") for i in range(30)]
    assert confusion(taken, 0)["verdict"].endswith("localization is not the main error")
    unknown = [Prediction.from_line(make_line("k", right=False, objects=None), "t")]
    assert confusion(unknown, 0)["verdict"].startswith("not measurable")
    assert confusion([], 0)["errors"]["n"] == 0
