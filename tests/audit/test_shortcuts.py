"""Shortcuts are found where they were put in, as strong as they are, and nowhere else."""

from __future__ import annotations

import io
import json
import math
import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from kvg.audit.conditional_logit import Choices, by_features, fit, judged
from kvg.audit.pixel_traces import pixel_traces
from kvg.audit.statistics import ENTITY, POSITION, RESEMBLANCE, SIZE, gather
from kvg.cli.kvg_data import main
from kvg.composites.augmentations import noisy
from kvg.composites.compositor import Compositor
from kvg.composites.settings import CompositorConfig
from kvg.config.settings import settings_of
from kvg.errors import DataError
from kvg.shards.writer import ShardWriter
from kvg.types import Sample, SceneObject

NAMES = tuple("ABCDEF")


@dataclass
class Part:
    """Samples in memory."""

    samples: list

    @property
    def num_samples(self):
        return len(self.samples)

    def read(self, tally=None):
        yield from enumerate(self.samples)


@dataclass
class Store:
    samples: list

    def parts(self):
        return [Part(self.samples[:100]), Part(self.samples[100:])]


def composite(rng, k=None, notes=False):
    """Boxes whose place, area and shape have nothing to do with each other, in reading order; the target by lot."""
    names = rng.sample(NAMES, k or rng.choice((2, 3, 4)))
    rows = sorted(rng.uniform(300, 700) for _ in names)
    things = []
    for name, y in zip(names, rows, strict=True):
        x, side, shape = rng.uniform(300, 700), math.exp(rng.uniform(3, 5)), math.exp(rng.uniform(-0.3, 0.3))
        w, h = side * shape, side / shape
        traits = tuple(rng.choice("abc") for _ in range(3)) if notes else ()
        things.append(SceneObject(name, (x - w / 2, y - h / 2, x + w / 2, y + h / 2), traits))
    return Sample("k", b"", 1000, 1000, "letter", "seen", tuple(things), rng.randrange(len(things)))


def made(choose=None, num=1500, **options):
    """Composites whose target ``choose(sample, rng)`` has changed."""
    found = []
    for index in range(num):
        rng = random.Random(f"shortcuts/{index}")
        sample = composite(rng, **options)
        found.append(replace(sample, target=choose(sample, rng)) if choose else sample)
    return found


def area(thing):
    x1, y1, x2, y2 = thing.box_px
    return (x2 - x1) * (y2 - y1)


def largest(sample):
    return max(range(len(sample.objects)), key=lambda i: area(sample.objects[i]))


def trials(samples, num_pixels=0):
    return {trial.family: trial for trial in gather(Store(samples), num_pixels).trials}


def warned(found):
    return {name for name, trial in found.items() if trial.warns}


def test_weights_of_a_choice_by_hand():
    # Of two objects with 0 and 1 the second is chosen three times of four: exp(w) / (1 + exp(w)) = 3/4, so w = ln 3.
    rows = [[[0.0], [1.0]], [[1.0], [0.0]]] * 2000
    chosen = [1, 0, 1, 0, 1, 0, 0, 1] * 500
    assert fit(Choices.of(rows, chosen)) == pytest.approx([math.log(3)], abs=2e-3)
    # A third object of 0 everywhere: p = exp(w) / (2 + exp(w)) = 3/4, so w = ln 6.
    rows = [[*row, [0.0]] for row in rows]
    assert fit(Choices.of(rows, chosen)) == pytest.approx([math.log(6)], abs=4e-3)


def test_what_tells_everything_has_finite_weights():
    trial = by_features("x", Choices.of([[[0.0, 5.0], [1.0, 5.0]]] * 200, [1] * 200), 0.95)
    assert (trial.accuracy, trial.chance, trial.low) == (1.0, 0.5, 1.0)
    assert trial.warns


def test_ties_are_a_draw_by_lot_and_the_interval_is_the_normal_one():
    utilities = np.array([[1.0, 0.0, 9.0], [2.0, 2.0, 0.0], [0.0, 1.0, 1.0], [3.0, 1.0, 2.0]])
    present = np.array([[True, True, False], [True, True, True], [True, True, True], [True, True, True]])
    trial = judged("x", utilities, present, np.array([0, 1, 0, 0]), 0.95)
    # Hits 1, 1/2, 0, 1 against chances 1/2, 1/3, 1/3, 1/3: gains 1/2, 1/6, -1/3, 2/3.
    assert trial.accuracy == pytest.approx(2.5 / 4)
    assert trial.chance == pytest.approx(1.5 / 4)
    deviation = np.std([1 / 2, 1 / 6, -1 / 3, 2 / 3])
    assert trial.accuracy - trial.low == pytest.approx(1.95996 * deviation / 2, rel=1e-4)
    assert trial.high - trial.accuracy == pytest.approx(1.95996 * deviation / 2, rel=1e-4)


def test_a_balanced_set_gives_no_warning():
    found = trials(made(notes=True))
    assert warned(found) == set()
    assert all(abs(trial.accuracy - trial.chance) < 0.05 for trial in found.values())
    assert found[SIZE].chance == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 3, abs=0.02)


def test_always_the_largest():
    found = trials(made(lambda sample, rng: largest(sample)))
    assert warned(found) == {SIZE}
    assert found[SIZE].accuracy > 0.99


def test_the_largest_half_of_the_time():
    found = trials(made(lambda sample, rng: largest(sample) if rng.random() < 0.5 else sample.target, k=2))
    assert warned(found) == {SIZE}
    assert found[SIZE].accuracy == pytest.approx(0.75, abs=0.04)  # one half, and one half of the rest
    assert found[SIZE].low < 0.75 < found[SIZE].high


def test_always_the_first():
    found = trials(made(lambda sample, rng: 0))
    assert warned(found) == {POSITION}
    assert found[POSITION].accuracy > 0.99


def test_an_entity_that_is_always_asked_for():
    def a_if_there(sample, rng):
        names = [thing.entity for thing in sample.objects]
        return names.index("A") if "A" in names else sample.target

    found = trials(made(a_if_there, k=3))
    assert warned(found) == {ENTITY}
    # Three of six: it is there one half of the time, and otherwise there is nothing to go by.
    assert found[ENTITY].accuracy == pytest.approx(1 / 2 + 1 / 2 / 3, abs=0.04)


def test_the_one_with_the_most_look_alikes():
    def hub(sample, rng):
        notes = [set(thing.traits) for thing in sample.objects]
        shared = [sum(len(own & other) / len(own | other) for other in notes) for own in notes]
        return rng.choice([i for i, value in enumerate(shared) if value == max(shared)])

    found = trials(made(hub, k=4, notes=True))
    assert warned(found) == {RESEMBLANCE}
    assert RESEMBLANCE not in trials(made(hub, num=60, k=4, notes=True) + made(num=60))  # not all have notes


def drawn(treat, num=120, biased=True, seed=0):
    """Grey squares on noise; the one asked for, or any of them, is treated."""
    samples = []
    for index in range(num):
        rng = random.Random(f"{seed}/{index}")
        image = noisy(Image.new("RGB", (240, 160), (120, 120, 120)), 4.0, rng)
        places = rng.sample([(x, y) for x in (15, 95, 170) for y in (13, 91)], 3)
        things = [SceneObject(NAMES[i], (x, y, x + 50.0, y + 50.0)) for i, (x, y) in enumerate(places)]
        target = rng.randrange(3)
        special = target if biased else rng.randrange(3)
        for number, (x, y) in enumerate(places):
            image = treat(image, (x, y, x + 50, y + 50), number == special, rng)
        file = io.BytesIO()
        image.save(file, "PNG")
        samples.append(Sample(f"{index}", file.getvalue(), 240, 160, "letter", "seen", tuple(things), target))
    return samples


def soft_or_sharp(image, box, special, rng):
    """A lighter square, whose rim is sharp, or blurred over some pixels."""
    mask = Image.new("L", image.size, 0)
    mask.paste(255, box)
    mask = mask if special else mask.filter(ImageFilter.GaussianBlur(4))
    lighter = noisy(Image.new("RGB", image.size, (150, 150, 150)), 4.0, rng)
    return Image.composite(lighter, image, mask)


def noisier(image, box, special, rng):
    """A square with more noise than the others."""
    square = noisy(image.crop(box), 9.0 if special else 5.0, rng)
    image.paste(square, box[:2])
    return image


def jpeg(image, box, special, rng):
    """A square that was a JPEG of a low or a high quality."""
    file = io.BytesIO()
    image.crop(box).resize((50, 50)).save(file, "JPEG", quality=8 if special else 95)
    image.paste(Image.open(file), box[:2])
    return image


@pytest.mark.parametrize(
    ("treat", "family"), [(soft_or_sharp, "rim"), (noisier, "noise"), (jpeg, "JPEG blocks")], ids=lambda v: str(v)[:9]
)
def test_traces_of_pasting_give_it_away(treat, family):
    found = trials(drawn(treat), num_pixels=120)
    assert family in warned(found)
    assert found[family].accuracy > 0.8
    assert found[family].num == 120
    assert warned(found).isdisjoint({POSITION, SIZE, "aspect", ENTITY})
    # Treated by lot it gives nothing away.
    assert warned(trials(drawn(treat, biased=False, seed=1), num_pixels=120)) == set()


def test_numbers_of_a_square_by_hand():
    image = Image.new("RGB", (64, 64), (100, 100, 100))
    image.paste((160, 160, 160), (20, 20, 40, 40))
    file = io.BytesIO()
    image.save(file, "PNG")
    thing = SceneObject("A", (20, 20, 40, 40))
    traces = pixel_traces(Sample("k", file.getvalue(), 64, 64, "letter", "seen", (thing,), 0))
    # A step of 60 all along the rim, none inside; 0.1 is added before the logarithm.
    assert traces["rim"][0] == pytest.approx([math.log(60.1), math.log(60.1) - math.log(0.1)], abs=1e-4)
    assert traces["contrast with the surroundings"][0] == pytest.approx([60, 60, 60 * 3**0.5], abs=1e-3)
    assert traces["JPEG blocks"][0] == [0.0, 0.0]
    assert traces["noise"][0] == pytest.approx([math.log(0.1)], abs=1e-3)


def test_composites_of_ours_give_nothing_away(source):
    settings = {"categories": ["disc"], "canvas_sizes": [(200, 160)], "k_weights": {2: 1, 3: 1, 4: 1}, "quality": 85}
    traces = {"feather": [0, 1], "noise": [0, 4], "tile_jpeg": 0.5, "gain": [0.9, 1.1]}
    config = settings_of(CompositorConfig, {**settings, "augmentations": traces}, "compositor")
    compositor = Compositor(source, config)
    samples = [compositor.sample(index) for index in range(300)]
    assert warned(trials(samples, num_pixels=300)) == set()


@pytest.fixture
def shards(tmp_path, source):
    compositor = Compositor(source, CompositorConfig(canvas_sizes=[(160, 120)], k_weights={2: 1, 3: 1}))
    with ShardWriter(tmp_path / "set", 50) as writer:
        for index in range(120):
            writer.write(compositor.sample(index))
    return tmp_path / "set"


def test_the_command_writes_a_record_and_a_page(shards, capsys):
    assert main(["shortcuts", str(shards), "--num", "60"]) == 0
    out = capsys.readouterr().out
    assert "120 composites; 0 warnings" in out
    record = json.loads((shards / "shortcuts.json").read_text())
    assert (record["num_samples"], record["num_pixels"]) == (120, 60)
    assert sum(record["counts"]["objects"].values()) == sum(record["counts"]["category"].values()) == 120
    assert sum(record["counts"]["layout"].values()) == sum(record["counts"]["area, asked for"].values()) == 120
    rows = {row["category"]: row for row in record["entities"]}
    assert (rows["disc"]["entities"], rows["other"]["entities"]) == (4, 2)
    low, middle, high = rows["other"]["asked for"]
    assert low + high == record["counts"]["category"]["other"] == 2 * middle
    page = (shards / "shortcuts.html").read_text()
    assert page.count("<figure>") == len(record["counts"])
    assert "http:" not in page
    before = (shards / "shortcuts.json").read_bytes()
    assert main(["shortcuts", str(shards), "--num", "60"]) == 0
    assert (shards / "shortcuts.json").read_bytes() == before


def test_the_command_names_the_shortcut(tmp_path, source, capsys):
    compositor = Compositor(source, CompositorConfig(canvas_sizes=[(160, 120)], k_weights={2: 1, 3: 1}))
    with ShardWriter(tmp_path / "set", 50) as writer:
        for index in range(120):
            writer.write(replace(compositor.sample(index), target=0, category="<b>"))
    assert main(["shortcuts", str(tmp_path / "set"), "--num", "0", "--out", str(tmp_path / "told")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "shortcut position: finds 100.0% of the objects asked for" in out
    page = (tmp_path / "told/shortcuts.html").read_text()
    assert "<li>position: finds 100.0%" in page
    assert "<b>" not in page
    assert not (tmp_path / "set/shortcuts.json").exists()


def test_few_composites_and_single_objects_are_only_counted(tmp_path):
    figures = gather(Store(made(num=20)))
    assert (figures.num_samples, figures.trials, figures.warnings) == (20, [], [])
    single = [replace(s, objects=s.objects[:1], target=0) for s in made(num=90)]
    assert gather(Store(single)).trials == []
    with pytest.raises(DataError, match="cannot be read; make the set"):
        gather(Store([]))


def test_a_damaged_picture_is_passed_over(caplog):
    samples = drawn(noisier, num=60)
    samples[7] = replace(samples[7], image=samples[7].image[:300])
    figures = gather(Store(samples), 60)
    assert (figures.num_samples, figures.num_pixels) == (60, 59)
    assert "sample 7: image: cannot be decoded" in caplog.text


def test_a_number_below_zero_is_refused(shards, capsys):
    assert main(["shortcuts", str(shards), "--num", "-1"]) == 2
    assert "--num: -1 is below 0" in capsys.readouterr().err
