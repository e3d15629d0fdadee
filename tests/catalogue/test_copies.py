"""Copies, pictures with two names, and different things on one background; all of drawn pictures, through the scan."""

from __future__ import annotations

import io
import json

import pytest
from PIL import Image, ImageDraw

from kvg.catalogue.copies import same_object
from kvg.catalogue.entry import Entry
from kvg.catalogue.examine import examine
from kvg.catalogue.listing import Listing
from kvg.catalogue.project import ScanSettings
from kvg.catalogue.sharing import SplitSettings, assign_splits

from .conftest import drawing, encoded

BOX = (100, 60, 240, 180)
COLOURS = {"Wren": (200, 30, 30), "Hobby": (30, 60, 200), "Merlin": (240, 220, 40)}


class Held:
    """A source of pictures in memory."""

    def __init__(self, files):
        self.files = files

    def read(self, ref):
        return self.files[ref]


def bird(name, background=7, box=BOX, size=(400, 300)):
    """A bird of its own colour and markings on a background."""
    image = drawing(background, (400, 300))
    pen = ImageDraw.Draw(image)
    pen.ellipse(box, fill=COLOURS[name])
    third = (box[2] - box[0]) / 3
    at = list(COLOURS).index(name)
    pen.rectangle((box[0] + at * third, box[1] + 30, box[0] + (at + 1) * third, box[3] - 30), fill=(0, 0, 0))
    return image.resize(size)


def jpeg(image, quality=90):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def shared(pictures, **settings):
    """Shares out pictures that are given as ``(ref, entity, file, box)``."""
    source = Held({ref: data for ref, _, data, _ in pictures})
    entries = [
        examine("s", source, Listing(ref, name, "bird", box), ScanSettings()).record for ref, name, _, box in pictures
    ]
    assert all(isinstance(entry, Entry) for entry in entries)
    kept, rejected, suspicions = assign_splits(entries, SplitSettings(**{"val": 0.3, "test": 0.3, **settings}), 0, {})
    return {e.ref: e.use for e in kept}, {r.ref: (r.field, r.reason) for r in rejected}, suspicions


@pytest.mark.parametrize("boxed", [True, False])
@pytest.mark.parametrize("background", [7, 8, 9])
def test_three_birds_on_one_background_are_kept(boxed, background):
    pictures = [(f"{n}.jpg", n, jpeg(bird(n, background)), BOX if boxed else None) for n in COLOURS]
    kept, rejected, _ = shared(pictures)
    assert kept.keys() == {f"{n}.jpg" for n in COLOURS}
    assert rejected == {}


def test_small_birds_on_one_background_are_kept_and_reported():
    small = (150, 100, 210, 160)
    pictures = [(f"{n}.jpg", n, jpeg(bird(n, 11, small)), None) for n in COLOURS]
    kept, rejected, suspicions = shared(pictures, copy_distance=15)
    assert (len(kept), rejected) == (3, {})
    assert "differ from one of another name only in a part" in suspicions[0]


CHANGES = {
    "another size": lambda image: jpeg(image.resize((200, 150))),
    "re-encoded": lambda image: jpeg(image, 40),
    "mirrored": lambda image: jpeg(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    "as png": lambda image: encoded(image, "PNG"),
}


def box_after(change):
    x1, y1, x2, y2 = BOX
    if change == "another size":
        return (x1 / 2, y1 / 2, x2 / 2, y2 / 2)
    return (400 - x2, y1, 400 - x1, y2) if change == "mirrored" else BOX


@pytest.mark.parametrize("boxed", ["both", "one", "none"])
@pytest.mark.parametrize("change", CHANGES)
def test_real_copies_are_on_one_side(change, boxed):
    sides = set()
    for background in range(20, 32):
        image = bird("Wren", background)
        pictures = [
            ("a.jpg", "Wren", jpeg(image), BOX if boxed != "none" else None),
            ("b.jpg", "Wren", CHANGES[change](image), box_after(change) if boxed == "both" else None),
        ]
        kept, rejected, _ = shared(pictures)
        assert rejected == {}
        assert kept["a.jpg"] == kept["b.jpg"]
        sides.add(kept["a.jpg"])
    assert len(sides) > 1


@pytest.mark.parametrize("boxed", ["both", "one", "none"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_copy_under_another_name_is_a_suspicion(change, boxed):
    image = bird("Wren", 33)
    pictures = [
        ("a.jpg", "Wren", jpeg(image), BOX if boxed != "none" else None),
        ("b.jpg", "Hobby", CHANGES[change](image), box_after(change) if boxed == "both" else None),
    ]
    kept, rejected, suspicions = shared(pictures)
    assert kept == {}
    assert rejected["a.jpg"][0] == rejected["b.jpg"][0] == "suspected copy"
    assert "seems to show the same as s: b.jpg, which is named 'Hobby'; correct the names" in rejected["a.jpg"][1]
    assert suspicions[0].startswith("2 pictures seem to show the same as one of another name, and are left out")
    kept, rejected, suspicions = shared(pictures, two_names="keep")
    assert kept["a.jpg"] == kept["b.jpg"]
    assert rejected == {}
    assert "are kept (splits.two_names: keep)" in suspicions[0]


def test_one_file_under_one_name_and_under_two():
    data = jpeg(bird("Wren"))
    kept, rejected, _ = shared([("a.jpg", "Wren", data, None), ("b.jpg", "Wren", data, None)])
    assert (list(kept), rejected) == (["a.jpg"], {"b.jpg": ("copy", "is the same file as s: a.jpg")})
    kept, rejected, _ = shared([("a.jpg", "Wren", data, None), ("b.jpg", "Hobby", data, None)], two_names="keep")
    assert kept == {}
    assert rejected["a.jpg"] == (
        "copy",
        "is the same file as s: b.jpg, which is named 'Hobby'; correct one of the names",
    )


def test_two_things_on_one_photograph_are_no_conflict():
    image = bird("Wren", 40)
    far = (250, 190, 390, 290)
    pen = ImageDraw.Draw(image)
    pen.ellipse(far, fill=COLOURS["Hobby"])
    for other in (jpeg(image), jpeg(image, 60)):
        kept, rejected, _ = shared([("a.jpg", "Wren", jpeg(image), BOX), ("b.jpg", "Hobby", other, far)])
        assert rejected == {}
        assert kept["a.jpg"] == kept["b.jpg"]  # one photograph, one side


def test_two_things_side_by_side_are_two_though_their_boxes_mirror_each_other():
    image = bird("Wren", 42, (40, 60, 180, 180))
    ImageDraw.Draw(image).ellipse((220, 60, 360, 180), fill=COLOURS["Hobby"])
    rows = [("a.jpg", "Wren", jpeg(image), (40, 60, 180, 180)), ("b.jpg", "Hobby", jpeg(image), (220, 60, 360, 180))]
    kept, rejected, _ = shared(rows)
    assert (len(kept), rejected) == (2, {})
    turned = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    _, rejected, _ = shared([rows[0], ("c.jpg", "Hobby", jpeg(turned), (220, 60, 360, 180))])
    assert len(rejected) == 2  # the mirrored Wren, under another name


def test_nothing_is_trained_on_that_is_on_a_photograph_with_something_unseen():
    image = bird("Wren", 41)
    data, far = jpeg(image), (250, 190, 390, 290)
    for seed in range(6):
        entries = [
            examine("s", Held({"a.jpg": data}), Listing("a.jpg", name, category, box), ScanSettings()).record
            for name, category, box in (("Wren", "bird", BOX), ("Trout", "fish", far))
        ]
        kept, *_ = assign_splits([entries[0]], SplitSettings(val=0, test=0), seed, {})
        assert [e.use for e in kept] == ["train"]
        entries[1] = Entry(**{**entries[1].__dict__, "ref": "b.jpg"})
        kept, *_ = assign_splits(entries, SplitSettings(unseen=["fish"], val=0, test=0), seed, {})
        assert [(e.split, e.use) for e in kept] == [("seen", "test"), ("unseen", "test")]


def test_the_same_object_in_front_of_another_background_is_found():
    one, other = bird("Wren", 50), bird("Wren", 51)
    inside = one.crop(BOX)
    other.paste(inside, (20, 100))
    box = (20, 100, 160, 220)
    kept, rejected, _ = shared(
        [("a.png", "Wren", encoded(one, "PNG"), BOX), ("b.png", "Wren", encoded(other, "PNG"), box)]
    )
    assert kept["a.png"] == kept["b.png"]
    _, rejected, _ = shared(
        [("a.png", "Wren", encoded(one, "PNG"), BOX), ("b.png", "Hobby", encoded(other, "PNG"), box)]
    )
    assert {field for field, _ in rejected.values()} == {"suspected copy"}


def test_objects_are_told_apart_by_their_boxes():
    def entry(box):
        return Entry("s", "a.jpg", "Wren", "bird", 100, 100, "0", "0", box)

    assert same_object(entry((10, 10, 50, 50)), entry((12, 10, 52, 50)))  # 38 of 42 columns
    assert not same_object(entry((10, 10, 50, 50)), entry((30, 10, 70, 50)))  # 20 of 60
    assert not same_object(entry((0, 10, 40, 50)), entry((60, 10, 100, 50)))
    assert same_object(entry((0, 0, 5, 5)), entry(None))


def test_the_threshold_is_a_setting():
    image = bird("Wren", 60)
    marked = image.copy()
    ImageDraw.Draw(marked).rectangle((0, 0, 33, 25), fill=(255, 255, 255))
    pictures = [("a.png", "Wren", encoded(image, "PNG"), None), ("b.png", "Hobby", encoded(marked, "PNG"), None)]
    assert len(shared(pictures, copy_change=0, copy_distance=15)[0]) == 2
    assert len(shared(pictures, copy_change=255, copy_distance=15)[0]) == 0


def test_looks_are_not_kept_in_the_catalogue():
    entry = examine(
        "s", Held({"a.jpg": jpeg(bird("Wren"))}), Listing("a.jpg", "Wren", "bird", BOX), ScanSettings()
    ).record
    assert entry.colour_grid
    assert not {"colour_grid", "box_colour_grid", "box_fingerprint", "file_fingerprint"} & {
        name for name, value in json.loads(json.dumps(entry.without_scan_fields().__dict__)).items() if value
    }
