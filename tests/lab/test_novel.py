"""Entities that nobody has met."""

from __future__ import annotations

import random

from kvg.composites.compositor import Compositor
from kvg.lab.novel import NovelSource
from kvg.lab.traits import load_cards
from kvg.pipeline.compose import build_compositor, load_config


def test_names_and_cards_are_new_and_families_are_look_alikes():
    source = NovelSource(families=2, look_alikes=3)
    names = [name for category in source.categories() for name in source.entities(category)]
    assert len(names) == len({*names}) == 10 * 2 * 4
    cards = load_cards()
    assert not {*names} & {card.name for card in cards}
    known = {(card.category, card.traits.words) for card in cards}
    infos = [source.info(name) for name in names]
    assert not {(info.category, info.traits) for info in infos} & known
    assert {info.knowledge for info in infos} == {"unknown"}
    first = source.entities("dog")[0]
    assert len(source.neighbours(first)) == 3
    assert source.info(first).split == "unseen"
    assert source.tile(first, random.Random(0)).mode == "RGBA"
    assert NovelSource(families=2, look_alikes=3).entities("dog") == source.entities("dog")
    assert NovelSource(families=2, look_alikes=3, seed=1).entities("dog") != source.entities("dog")


def test_composites_of_the_shipped_config_have_zero_to_three_look_alikes():
    compositor = build_compositor(load_config("configs/lab/novel.yaml"))
    assert isinstance(compositor, Compositor)
    counts = set()
    for index in range(40):
        sample = compositor.sample(index)
        wanted = sample.objects[sample.target].traits
        counts.add(sum(sum(a != b for a, b in zip(wanted, o.traits, strict=True)) == 1 for o in sample.objects))
    assert {0, 1, 2} <= counts <= {0, 1, 2, 3}
