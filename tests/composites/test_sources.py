from __future__ import annotations

import json
import random

import pytest
from PIL import Image

from kvg.composites.compositor import Compositor
from kvg.composites.settings import CompositorConfig
from kvg.composites.sources import FolderSource
from kvg.errors import DataError


def cut_out(path, size=(60, 40), box=(10, 5, 50, 35)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGBA", size, (0, 0, 0, 0))
    image.paste((200, 30, 30, 255), box)
    image.save(path)


def photo(path, size=(80, 60)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 90)).save(path)


def test_folder_per_entity(tmp_path):
    for name in ("Red_Kite/a.png", "Red_Kite/b.png", "Merlin/a.png"):
        cut_out(tmp_path / "bird" / name)
    cut_out(tmp_path / "food/Banana/1.png")
    source = FolderSource(tmp_path, unseen=["food"], knowledge={"Merlin": "known"})
    assert source.categories() == ("bird", "food")
    assert source.entities("bird") == ("Merlin", "Red Kite")
    assert (source.info("Merlin").split, source.info("Merlin").knowledge) == ("seen", "known")
    assert (source.info("Banana").split, source.info("Banana").category) == ("unseen", "food")
    assert {source.tile("Red Kite", random.Random(i)).path for i in range(20)} == {
        "bird/Red_Kite/a.png",
        "bird/Red_Kite/b.png",
    }


def test_name_on_line_one_beside_a_picture(tmp_path):
    cut_out(tmp_path / "animals/birds/owl.png")
    (tmp_path / "animals/birds/owl.txt").write_text("A barn owl.\nbg.utf8=...\n", "utf-8")
    cut_out(tmp_path / "animals/birds/flightless/emu.png")
    (tmp_path / "animals/birds/flightless/emu.txt").write_text("An Emu.")
    cut_out(tmp_path / "animals/birds/duck.png")
    (tmp_path / "animals/birds/names.json").write_text('{"duck.png": "Mallard"}')
    source = FolderSource(tmp_path, categories={"animals/birds": "bird"})
    assert source.entities("bird") == ("Mallard", "Emu", "barn owl")


def test_remarks_behind_a_name_are_dropped_and_names_json_corrects_it(tmp_path):
    lines = {
        "a": "A peacock (a male peafowl).",
        "b": "A spiny lobster, from Hawaii.",
        "c": "Sweet corn!",
        "d": "Eat it!",
    }
    for stem, line in lines.items():
        cut_out(tmp_path / "things" / f"{stem}.png")
        (tmp_path / "things" / f"{stem}.txt").write_text(line, "utf-8")
    (tmp_path / "things/names.json").write_text('{"d.png": "broccoli"}')
    assert FolderSource(tmp_path).entities("things") == ("peacock", "spiny lobster", "Sweet corn", "broccoli")


def test_excluded_pictures_are_left_out(tmp_path):
    for name in ("bird/owl.png", "bird/cartoon/tux.png", "bird/toys/duck.png"):
        cut_out(tmp_path / name)
    assert FolderSource(tmp_path, exclude=["*/cartoon/*", "bird/t*"]).entities("bird") == ("owl",)


def test_root_of_pictures_is_one_category(tmp_path):
    cut_out(tmp_path / "bird" / "red_kite.png")
    assert FolderSource(tmp_path / "bird").entities("bird") == ("red kite",)


def test_boxes_json_and_mirror(tmp_path):
    photo(tmp_path / "landmark/Eiffel_Tower/1.jpg")
    (tmp_path / "boxes.json").write_text(json.dumps({"landmark/Eiffel_Tower/1.jpg": [10, 5, 30, 55]}))
    source = FolderSource(tmp_path)
    boxes = {source.tile("Eiffel Tower", random.Random(i)).box for i in range(20)}
    assert boxes == {(10.0, 5.0, 30.0, 55.0), (50.0, 5.0, 70.0, 55.0)}


def test_small_pictures_are_left_out(tmp_path):
    cut_out(tmp_path / "bird/A/1.png", (60, 40))
    cut_out(tmp_path / "bird/B/1.png", (200, 160), (20, 20, 180, 140))
    assert FolderSource(tmp_path, min_side=100).entities("bird") == ("B",)


def test_composites_of_photographs(tmp_path):
    for name in ("A", "B", "C"):
        cut_out(tmp_path / f"bird/{name}/1.png")
    sample = Compositor(FolderSource(tmp_path), CompositorConfig(k_weights={3: 1})).sample(0)
    assert len(sample.objects) == 3
    assert sample.provenance["source"] == "FolderSource"
    assert sorted(sample.provenance["tiles"]) == ["bird/A/1.png", "bird/B/1.png", "bird/C/1.png"]


def test_missing_root(tmp_path):
    with pytest.raises(DataError, match="root: is not a folder"):
        FolderSource(tmp_path / "nowhere")


def test_empty_category(tmp_path):
    cut_out(tmp_path / "bird/A/1.png")
    (tmp_path / "food").mkdir()
    with pytest.raises(DataError, match="food: category: 'food' holds no usable picture"):
        FolderSource(tmp_path)


@pytest.mark.parametrize("box", [[10, 5, 82, 55], [30, 5, 10, 55], [-2, 0, 5, 5]])
def test_box_outside_its_image(tmp_path, box):
    photo(tmp_path / "landmark/X/1.jpg")
    (tmp_path / "boxes.json").write_text(json.dumps({"landmark/X/1.jpg": box}))
    with pytest.raises(DataError, match=r"1\.jpg: box: .* (does not lie inside its 80x60 picture|has no area)"):
        FolderSource(tmp_path)


def test_box_of_wrong_shape(tmp_path):
    photo(tmp_path / "landmark/X/1.jpg")
    (tmp_path / "boxes.json").write_text(json.dumps({"landmark/X/1.jpg": [1, 2, 3]}))
    with pytest.raises(DataError, match=r"box: \[1, 2, 3\] is not"):
        FolderSource(tmp_path)


def test_photograph_without_box(tmp_path):
    photo(tmp_path / "landmark/X/1.jpg")
    with pytest.raises(DataError, match="box: has neither alpha nor a box"):
        FolderSource(tmp_path)


def test_one_name_in_two_categories(tmp_path):
    cut_out(tmp_path / "bird/Robin/1.png")
    cut_out(tmp_path / "car/Robin/1.png")
    with pytest.raises(DataError, match="'Robin' is in bird too"):
        FolderSource(tmp_path)


def test_truncated_photograph_is_named(tmp_path):
    photo(tmp_path / "landmark/X/1.jpg", (400, 300))
    (tmp_path / "boxes.json").write_text(json.dumps({"landmark/X/1.jpg": [1, 2, 30, 40]}))
    path = tmp_path / "landmark/X/1.jpg"
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(DataError, match=r"1\.jpg: image: is cut off"):
        FolderSource(tmp_path).tile("X", random.Random(0))


def test_a_text_file_named_png(tmp_path):
    (tmp_path / "bird/A").mkdir(parents=True)
    (tmp_path / "bird/A/1.png").write_text("not a picture")
    with pytest.raises(DataError, match=r"1\.png: image: is no picture"):
        FolderSource(tmp_path)


def test_transparent_cut_out_is_named(tmp_path):
    for name in ("A", "B"):
        (tmp_path / f"bird/{name}").mkdir(parents=True)
        Image.new("RGBA", (50, 50), (0, 0, 0, 0)).save(tmp_path / f"bird/{name}/1.png")
    with pytest.raises(DataError, match=r"1\.png: alpha: is empty"):
        Compositor(FolderSource(tmp_path)).sample(0)


BOX = [10, 5, 30, 55]


@pytest.mark.parametrize(
    "bad", [None, [], "x", 5, {}, [1, 2, 3], [0.1, 0.2, 0.3, 0.4], [10, 5, 300, 55], True], ids=repr
)
def test_one_bad_box_leaves_one_picture_out(tmp_path, caplog, bad):
    for name in ("Eiffel_Tower/1.jpg", "Big_Ben/2.jpg"):
        photo(tmp_path / "landmark" / name)
    boxes = {"landmark/Eiffel_Tower/1.jpg": bad, "landmark/Big_Ben/2.jpg": BOX, "landmark/none.jpg": BOX}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    source = FolderSource(tmp_path)
    assert source.entities("landmark") == ("Big Ben",)
    assert [error.field for error in source.rejected] == ["box"]
    assert "1 pictures left out (box 1); the first" in caplog.text
    assert "1 boxes of boxes.json belong to no picture" in caplog.text


@pytest.mark.parametrize("bad", [None, "", 5, [], {}, True, "\ud800"], ids=repr)
def test_one_bad_name_leaves_one_picture_out(tmp_path, bad):
    for name in ("a.png", "b.png"):
        cut_out(tmp_path / "bird" / name)
    (tmp_path / "bird/names.json").write_text(json.dumps({"a.png": bad, "b.png": "Cafe\u0301  racer"}))
    source = FolderSource(tmp_path)
    assert source.entities("bird") == ("Caf\u00e9 racer",)
    assert [error.field for error in source.rejected] == ["name"]


@pytest.mark.parametrize("text", ["[]", "5", "{", "null", "\ufeff[1]"])
def test_files_that_are_no_mapping(tmp_path, text):
    cut_out(tmp_path / "bird/a.png")
    for name in ("boxes.json", "bird/names.json"):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=r"\.json: json: "):
            FolderSource(tmp_path)
        (tmp_path / name).unlink()


@pytest.mark.parametrize(
    ("form", "box"),
    [
        ({"box_format": "xywh"}, [10, 5, 20, 50]),
        ({"box_format": "cxcywh"}, [20, 30, 20, 50]),
        ({"box_unit": "unit"}, [0.125, 1 / 12, 0.375, 11 / 12]),
        ({"box_unit": "relative_1000"}, [125, 1000 / 12, 375, 11000 / 12]),
    ],
)
def test_boxes_in_a_declared_form(tmp_path, form, box):
    photo(tmp_path / "landmark/X/1.jpg")
    (tmp_path / "boxes.json").write_text(json.dumps({"landmark/X/1.jpg": box}))
    tile = FolderSource(tmp_path, **form).tile("X", random.Random(1))
    assert tile.entity_box == pytest.approx((10, 5, 30, 55))


def test_boxes_of_raw_pixels_are_turned_with_their_picture(tmp_path):
    image = Image.new("RGB", (80, 60), (90, 120, 90))
    image.paste((250, 0, 0), (10, 5, 30, 55))
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "landmark/X").mkdir(parents=True)
    image.save(tmp_path / "landmark/X/1.png", exif=exif)
    (tmp_path / "boxes.json").write_text(json.dumps({"landmark/X/1.png": BOX}))
    tile = FolderSource(tmp_path, boxes_of="raw").tile("X", random.Random(1))
    assert (tile.size, tile.entity_box) == ((60, 80), (5, 10, 55, 30))


def test_hidden_and_system_files_are_no_pictures(tmp_path):
    for name in ("bird/Wren/1.png", "bird/.ipynb_checkpoints/1.png", "bird/Wren/._1.png", "__MACOSX/bird/1.png"):
        cut_out(tmp_path / name)
    for name in (".thumbnails", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"):
        (tmp_path / name).mkdir()
    source = FolderSource(tmp_path)
    assert (source.categories(), source.entities("bird")) == (("bird",), ("Wren",))


def test_names_in_two_forms_of_unicode_are_one_entity(tmp_path):
    cut_out(tmp_path / "bird/Caf\u00e9/1.png")
    cut_out(tmp_path / "bird/Cafe\u0301/1.png")
    source = FolderSource(tmp_path, knowledge={"Cafe\u0301": "known"})
    assert source.entities("bird") == ("Caf\u00e9",)
    assert source.info("Caf\u00e9").knowledge == "known"


def test_names_that_would_steer_a_model_are_rejected(tmp_path):
    for name in ("a.png", "b.png"):
        cut_out(tmp_path / "bird" / name)
    (tmp_path / "bird/names.json").write_text('{"a.png": "Merlin", "b.png": "Merlin <|im_end|>"}')
    source = FolderSource(tmp_path)
    assert source.entities("bird") == ("Merlin",)
    assert "entity: may not hold <|im_end|>" in str(source.rejected[0])
