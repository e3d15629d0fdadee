"""Pairs of composites: everything is equal but the places of target and look-alike, exactly to the pixel."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from kvg.composites.compositor import Compositor
from kvg.errors import ConfigError, DataError
from kvg.pipeline.compose import compose, load_config
from kvg.pipeline.filter import whole_pairs
from kvg.shards.reader import ShardFolder, Tally
from kvg.shards.schema import decode_record, encode_record
from tests.composites.conftest import config, pixels

LAB = "configs/lab/train.yaml"


def boxes(sample):
    return {item.entity: item.box_px for item in sample.objects}


def test_target_and_look_alike_change_places_and_nothing_else_moves(source):
    compositor = Compositor(source, config(paired=True, k_weights={4: 1}, layouts={"grid": 1}))
    pairs = [(compositor.sample(2 * number), compositor.sample(2 * number + 1)) for number in range(8)]
    for first, second in pairs:
        assert (first.entity, first.pair) == (second.entity, second.pair) == (first.entity, first.key)
        before, after = boxes(first), boxes(second)
        moved = {name for name in before if before[name] != after[name]}
        assert len(moved) == 2
        assert first.entity in moved
        (other,) = moved - {first.entity}
        assert (before[other], before[first.entity]) == (after[first.entity], after[other])
        if first.entity == "Red":  # the source names Green as its only look-alike
            assert other == "Green"
    assert any(first.entity == "Red" for first, _ in pairs)
    first, second = pairs[0]  # outside both boxes the pictures are the same
    differ = np.abs(pixels(first) - pixels(second)).sum(-1) > 0
    for box in (boxes(first)[first.entity], boxes(second)[first.entity]):
        x1, y1, x2, y2 = (round(value) for value in box)
        assert differ[y1:y2, x1:x2].any()
        differ[y1 - 2 : y2 + 2, x1 - 2 : x2 + 2] = False
    assert not differ.any()


def test_the_first_of_a_pair_is_the_composite_that_would_be_there_without_pairs(source):
    plain, paired = Compositor(source, config()), Compositor(source, config(paired=True))
    assert paired.sample(4) == replace(plain.sample(4), pair="s0-0000004")
    assert plain.sample(4).pair == ""


def test_pairs_of_the_lab_are_written_side_by_side_and_read_again(tmp_path):
    settings = load_config(LAB, ["compositor.paired=true"])
    compose(settings, tmp_path / "set", 6, seed=3, samples_per_shard=4)
    stored = [s for part in ShardFolder(tmp_path / "set").parts() for _, s in part.read(Tally())]
    assert [s.key for s in stored] == [f"s3-{number:07d}" for number in range(6)]
    assert [s.pair for s in stored] == [f"s3-{number - number % 2:07d}" for number in range(6)]
    with pytest.raises(ConfigError, match="samples_per_shard"):
        compose(settings, tmp_path / "odd", 6, samples_per_shard=3)
    with pytest.raises(ConfigError, match=r"compositor\.paired"):
        config(paired=True, k_weights={1: 1, 2: 1})


def test_the_record_holds_the_pair_as_text(source):
    sample = Compositor(source, config(paired=True)).sample(1)
    members = encode_record(sample)
    record = json.loads(members["json"])
    assert record["provenance"]["pair"] == "s0-0000000"
    record["provenance"]["pair"] = 3
    with pytest.raises(DataError, match=r"provenance\.pair"):
        decode_record("shard", sample.key, {**members, "json": json.dumps(record).encode()})


def test_the_filter_takes_both_of_a_pair_or_none(source):
    compositor, tally = Compositor(source, config(paired=True)), Tally(log_problems=False)
    a, b, c, _, e, f = (compositor.sample(number) for number in range(6))
    alone = replace(c, pair="", key="alone")
    units = whole_pairs([(a, 4), (b, 0), (c, 2), (alone, 1), (replace(alone, key="next"), 3), (e, 4), (f, 3)], tally)
    assert [[num for _, num in unit] for unit in units] == [[4, 0], [1], [3], [4, 3]]
    assert tally.num_bad == 1  # c, whose pair is not there
