"""No copy on two sides, nothing of an unseen entity in training, and draws that do not move when the set grows."""

from __future__ import annotations

import hashlib
import random
from collections import Counter

import pytest

from kvg.catalogue.entry import Entry
from kvg.catalogue.sharing import SplitSettings, assign_splits
from kvg.errors import ConfigError

REMEDY = "correct the names; or, if they are two objects, set splits.two_names: keep, or a lower splits.copy_change"


def entry(number, entity="Hoopoe", category="bird", fingerprint=None, sha256=None):
    value = random.Random(number).getrandbits(64) if fingerprint is None else fingerprint
    name = hashlib.sha256(str(number).encode()).hexdigest() if sha256 is None else sha256
    return Entry("photos", f"{number}.jpg", entity, category, 90, 60, name, f"{value:016x}")


def uses(entries):
    return {e.ref: (e.split, e.use) for e in entries}


def test_shares_are_as_asked():
    kept, rejected, _ = assign_splits([entry(n) for n in range(2000)], SplitSettings(val=0.1, test=0.3), 0, {})
    counts = {use: sum(e.use == use for e in kept) for use in ("train", "val", "test")}
    assert rejected == []
    # Four standard deviations of a share of 0.3 are 82 of 2,000.
    assert abs(counts["val"] - 200) < 60
    assert abs(counts["test"] - 600) < 82


def test_copies_stay_together():
    base = [entry(n) for n in range(300)]
    copies = [entry(1000 + n, fingerprint=int(base[n].fingerprint, 16) ^ 0b101) for n in range(300)]
    use_of = uses(assign_splits(base + copies, SplitSettings(val=0.3, test=0.3), 0, {})[0])
    assert all(use_of[f"{n}.jpg"] == use_of[f"{1000 + n}.jpg"] for n in range(300))
    assert len(set(use_of.values())) == 3


def test_a_draw_does_not_depend_on_what_else_there_is():
    entries = [entry(n, entity=f"E{n % 7}") for n in range(200)]
    settings = SplitSettings(held_out=0.3, val=0.3, test=0.3)
    few, all_of_them = (uses(assign_splits(some, settings, 5, {})[0]) for some in (entries[:50], entries))
    assert few.items() <= all_of_them.items()
    assert few != uses(assign_splits(entries[:50], settings, 6, {})[0])


def test_each_entity_keeps_its_least_number_of_training_pictures():
    entries = [entry(n, entity=f"E{n // 3}") for n in range(300)]  # three pictures of each of 100 entities
    entries += [
        entry(900, entity="Single"),
        entry(901, "Twice"),
        entry(902, "Twice", fingerprint=int(entry(901).fingerprint, 16)),
    ]
    free = uses(assign_splits(entries, SplitSettings(val=0.5, test=0.5), 0, {})[0])
    assert "train" not in {use for _, use in free.values()}
    kept = assign_splits(entries, SplitSettings(val=0.5, test=0.5, min_train=1), 0, {})[0]
    trained = Counter(e.entity for e in kept if e.use == "train")
    # Two copies are one picture: both are trained on.
    assert trained == {**{f"E{n}": 1 for n in range(100)}, "Single": 1, "Twice": 2}
    assert all(use == free[ref] for ref, use in uses(kept).items() if use[1] != "train")  # nothing else moved
    all_of_them = assign_splits(entries, SplitSettings(val=0.5, test=0.5, min_train=9), 0, {})[0]
    assert {e.use for e in all_of_them} == {"train"}


def test_no_unseen_entity_keeps_a_training_picture():
    kept = assign_splits([entry(n, f"E{n}") for n in range(20)], SplitSettings(unseen=["bird"], min_train=1), 0, {})[0]
    assert "train" not in {e.use for e in kept}


def test_nothing_unseen_is_trained_on():
    entries = [entry(n, f"{category}{n % 20}", category) for n in range(400) for category in ("bird", "fish")]
    entries = [entry(k, e.entity, e.category) for k, e in enumerate(entries)]
    kept, *_ = assign_splits(entries, SplitSettings(unseen=["fish"], held_out=0.25, val=0.1, test=0.1), 0, {})
    unseen = {e.entity for e in kept if e.split == "unseen"}
    assert {e.entity for e in kept if e.category == "fish"} <= unseen
    assert 1 <= sum(name.startswith("bird") for name in unseen) <= 12
    assert not any(e.use == "train" for e in kept if e.entity in unseen)
    assert {e.use for e in kept if e.entity in unseen} == {"val", "test"}
    only_test, *_ = assign_splits(entries, SplitSettings(unseen=["fish"], val=0.0, test=0.0), 0, {})
    assert {(e.split, e.use) for e in only_test} == {("unseen", "test"), ("seen", "train")}


def test_what_is_left_out_and_why():
    same = entry(3).sha256
    entries = [
        entry(0, fingerprint=0b1110),  # one bit from a benchmark picture
        entry(1, "Hoopoe", fingerprint=0xF0F0 << 30),
        entry(2, "Wren", fingerprint=0xF0F1 << 30),
        entry(3),
        entry(4, fingerprint=int(entry(3).fingerprint, 16), sha256=same),
    ]
    kept, rejected, _ = assign_splits(entries, SplitSettings(), 0, {"bench.parquet#7": f"{0b1111:016x}"})
    assert [e.ref for e in kept] == ["3.jpg"]
    assert [(r.ref, r.reason) for r in rejected] == [
        ("0.jpg", "looks the same as bench.parquet#7, which must not be trained on"),
        ("1.jpg", f"seems to show the same as photos: 2.jpg, which is named 'Wren'; {REMEDY}"),
        ("2.jpg", f"seems to show the same as photos: 1.jpg, which is named 'Hoopoe'; {REMEDY}"),
        ("4.jpg", "is the same file as photos: 3.jpg"),
    ]


@pytest.mark.parametrize(
    "bad", [{"val": 0.7, "test": 0.7}, {"held_out": 2.0}, {"copy_distance": 16}, {"min_train": -1}]
)
def test_settings_that_cannot_work(bad):
    with pytest.raises(ConfigError, match="splits"):
        SplitSettings(**bad)


def test_an_unseen_category_has_to_be_there():
    with pytest.raises(ConfigError, match="'fsh'"):
        assign_splits([entry(0)], SplitSettings(unseen=["fsh"]), 0, {})
