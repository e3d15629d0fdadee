"""The questions and answers of pretraining, by hand."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace

from kvg.lab.labels import wanted_looks
from kvg.lab.skills import attribute, describe, follow, ground, made_up_name, named_by_card, reason, region
from kvg.lab.traits import load_cards
from kvg.types import traits_of


def test_skills_by_hand(pair):
    rng = random.Random(0)
    look = "Look: 1 <box:0> red, white spots, crest, slim; 2 <box:1> blue, plain, long tail, broad."
    assert describe(pair, rng) == ("Describe the objects.", look)
    asked, answer = reason(pair, rng)
    assert asked.startswith("Find and give the bounding box of <|object_ref_start|>blue, plain, long tail, broad<|")
    verdict = "Compare: <box:1> yes; 1 no, red. Conclusion: object 2."
    assert answer == f"Plan: it is blue, plain, long tail, broad. {look} {verdict} <box:1>"
    closes = set()
    for _ in range(20):
        asked, answer = follow(pair, rng)
        tags = "in tags" if "<answer> </answer> tags" in asked else "plain"
        close = answer.removeprefix(f" {look} {verdict}")
        closes.add((tags, close))
        assert "blue" not in asked.split("<turn>")[0]
        assert asked.endswith(" is blue, plain, long tail, broad.")
    assert closes == {("plain", " <box:1>"), ("in tags", "</think><answer><box:1></answer>")}
    asked, answer = named_by_card(pair, rng)
    name = re.match(r"The (.+?) is blue, plain, long tail, broad\. Find", asked)[1]
    assert f"<|object_ref_start|>{name}<|object_ref_end|>" in asked
    plan = f"<think>Plan: the {name} is blue, plain, long tail, broad."
    assert answer == f"{plan} {look} {verdict}</think><answer><box:1></answer>"
    assert wanted_looks(asked) == wanted_looks("Plan: it is blue, plain, long tail, broad.")
    for _ in range(20):
        asked, answer = region(pair, rng)
        assert answer == pair.objects[int(asked[-3])].description
        asked, answer = attribute(pair, rng)
        slot = ["colour", "marking", "part", "build"].index(asked.split()[3])
        assert answer == pair.objects[int(asked[-3])].traits[slot]


def test_names_are_made_up():
    names = [made_up_name(random.Random(seed)) for seed in range(500)]
    assert len(set(names)) > 450
    assert not {card.name for card in load_cards()} & set(names)
    assert {len(name.split()) for name in names} == {1, 2, 3, 4}  # three words and a number


def test_a_description_fits_the_target_alone(pair):
    rng = random.Random(0)
    right = pair.objects[1]
    near = [
        replace(right, traits=traits_of(text))
        for text in ("blue, plain, crest, broad", "blue, red top, long tail, broad")
    ]
    crowd = replace(pair, objects=(*near, right), target=2)
    lengths = Counter()
    for _ in range(200):
        asked, answer = ground(crowd, rng)
        assert answer == "<box:2>"
        words = re.search(r"<\|object_ref_start\|>(.+)<\|object_ref_end\|>", asked)[1].split(", ")
        fitting = [n for n, thing in enumerate(crowd.objects) if set(words) <= set(thing.traits)]
        assert fitting == [2]
        lengths[len(words)] += 1
    assert lengths[4] > 80
    assert lengths[2] + lengths[3] > 20
    assert lengths[1] == 0  # each of its traits is shared with a neighbour
