"""What is refused, skipped and counted, and what is never overwritten or written elsewhere."""

from __future__ import annotations

import io
import json
import tarfile

import pytest
from PIL import Image

from kvg.shards.schema import encode_record

from .conftest import build, encoded
from .test_round_trips import START


def edit(path, change):
    value = json.loads(path.read_text("utf-8"))
    change(value)
    path.write_text(json.dumps(value), "utf-8")


@pytest.mark.parametrize("form", START)
def test_nothing_is_overwritten_by_chance(form, shards, tmp_path, convert, capsys):
    out = tmp_path / "out"
    assert convert(shards, out, form) == 0
    first = sorted(out.rglob("*"))
    assert convert(shards, out, form) == 2
    assert "already exists" in capsys.readouterr().err
    assert convert(shards, out, form, "--overwrite") == 0
    assert sorted(out.rglob("*")) == first
    (out / "mine.txt").write_text("notes")
    assert convert(shards, out, form, "--overwrite") == 2
    assert "mine.txt, which is no part of" in capsys.readouterr().err
    assert (out / "mine.txt").read_text() == "notes"
    assert not (tmp_path / "out.partial").exists()


def test_a_failed_conversion_leaves_nothing(shards, tmp_path, convert, capsys):
    (tmp_path / "empty.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert convert(tmp_path / "empty.json", tmp_path / "out", "yolo", "--from", "coco") == 2
    assert "none could be read" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.json", "shards"]


@pytest.mark.parametrize("key", ["../../evil", "/etc/evil", "..", "a/b", "a\\b"])
def test_members_of_a_tar_stay_in_their_folder(key, tmp_path, convert, capsys):
    """A shard made by hand whose member and record have a key that leads out of the folder."""
    from kvg.shards.writer import ShardWriter

    with ShardWriter(tmp_path / "set") as writer:
        writer.write(build(0))
    members = encode_record(build(1))
    record = {**json.loads(members["json"]), "key": key}
    members["json"] = json.dumps(record).encode()
    path = next((tmp_path / "set").glob("*.tar"))
    with tarfile.open(path, "a") as tar:
        for extension, data in members.items():
            info = tarfile.TarInfo(f"{key}.{extension}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    before = {p for p in tmp_path.rglob("*") if p.is_file()}
    assert convert(tmp_path / "set", tmp_path / "out" / "deep", "coco") == 0
    assert "skipped 1 bad samples" in capsys.readouterr().out
    made = {p for p in tmp_path.rglob("*") if p.is_file()} - before
    assert {p.relative_to(tmp_path).parts[:2] for p in made} == {("out", "deep")}
    assert len(list((tmp_path / "out" / "deep" / "images").iterdir())) == 1


@pytest.mark.parametrize("name", ["../secret.png", "/secret.png", "images/../../secret.png"])
@pytest.mark.parametrize("form", ["coco", "label-studio", "jsonl-paligemma", "listing"])
def test_pictures_outside_the_folder_are_not_read(form, name, shards, tmp_path, convert, capsys):
    (tmp_path / "secret.png").write_bytes(build(1).image)
    assert convert(shards, tmp_path / "there", form) == 0
    path = tmp_path / "there" / START[form]
    text = path.read_text("utf-8")
    path.write_text(text.replace("images/k0000.jpg", name).replace("k0000.jpg", name), "utf-8")
    assert convert(path, tmp_path / "back", "shards", "--from", form, "--category", "bird") == 0
    assert "skipped 1 bad samples" in capsys.readouterr().out


def test_bad_entries_of_coco_are_counted(shards, tmp_path, convert, read, capsys, caplog):
    assert convert(shards, tmp_path / "there", "coco") == 0

    def damage(value):
        value["images"][0]["width"] = 999  # another picture than the annotated one
        value["annotations"][3]["bbox"] = [0.1, 0.1, 0.5, 0.5]  # image 2: shares, not pixels
        value["annotations"][6]["category_id"] = 77  # image 3: a box without a name spoils the picture
        value["annotations"][9]["iscrowd"] = 1  # image 4
        value["annotations"].append({"id": 99, "image_id": 12, "category_id": 1, "bbox": [1, 1, 9, 9]})

    edit(tmp_path / "there" / "annotations.json", damage)
    assert convert(tmp_path / "there" / "annotations.json", tmp_path / "back", "shards", "--from", "coco") == 0
    for message in ("width: is 999", "box_unit is pixels; state box_unit: unit", "77 is no category", "is a crowd"):
        assert message in caplog.text
    # Image 2 keeps its target, the third box; image 4 has lost its target, the crowd, so its two others are asked for.
    assert [s.key for s in read(tmp_path / "back")] == ["k0001", "k0003-0", "k0003-1"]
    assert "2 rationales were left out" in capsys.readouterr().out


def test_two_objects_of_one_name_are_no_question(tmp_path, convert, read, caplog):
    (tmp_path / "a.png").write_bytes(build(1).image)
    value = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "Merlin", "supercategory": "bird"}, {"id": 2, "name": "Hobby"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": category, "bbox": [10 * n, 5, 9, 9]}
            for n, category in enumerate((1, 1, 2), 1)
        ],
    }
    (tmp_path / "c.json").write_text(json.dumps(value))
    assert convert(tmp_path / "c.json", tmp_path / "back", "shards", "--from", "coco", "--category", "raptor") == 0
    assert [(s.entity, s.category) for s in read(tmp_path / "back")] == [("Hobby", "raptor")]
    assert caplog.text.count("'Merlin' stands at 2 boxes") == 2


def turned(number):
    """A JPEG of 80x60 stored pixels that viewers show as 60x80; a white object at (10, 20)-(40, 50) as stored."""
    image = Image.new("RGB", (80, 60), (20 * number, 0, 0))
    image.paste((255, 255, 255), (10, 20, 40, 50))
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image, quality=95, exif=exif)


@pytest.mark.parametrize(
    ("boxes_of", "box", "size"), [("raw", [10, 20, 30, 30], (80, 60)), ("upright", [10, 10, 30, 30], (60, 80))]
)
def test_rotated_pictures(boxes_of, box, size, tmp_path, convert, read):
    """Boxes mean the picture as shown; with --boxes-of raw, its pixels as stored. Both find the white object."""
    (tmp_path / "a.jpg").write_bytes(turned(1))
    value = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": size[0], "height": size[1]}],
        "categories": [{"id": 1, "name": "square", "supercategory": "shape"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": box}],
    }
    (tmp_path / "c.json").write_text(json.dumps(value))
    more = ["--from", "coco", "--boxes-of", boxes_of]
    assert convert(tmp_path / "c.json", tmp_path / "back", "shards", *more) == 0
    (sample,) = read(tmp_path / "back")
    assert (sample.width, sample.height, sample.box_px) == (60, 80, (10, 10, 40, 40))
    pixels = Image.open(io.BytesIO(sample.image))
    assert pixels.getexif().get(0x0112, 1) == 1
    assert min(pixels.convert("L").crop((12, 12, 38, 38)).getextrema()) > 200
    for form in ("yolo", "label-studio", "fiftyone"):  # what we write is upright, so no reader has to turn it
        assert convert(tmp_path / "back", tmp_path / form, form) == 0
        source = tmp_path / form / START[form]
        assert convert(source, tmp_path / f"{form}-b", "shards", "--from", form, "--category", "shape") == 0
        assert read(tmp_path / f"{form}-b")[0].box_px == (10, 10, 40, 40)
    # The size in the list tells when the declaration is wrong.
    wrong = "upright" if boxes_of == "raw" else "raw"
    assert convert(tmp_path / "c.json", tmp_path / "no", "shards", "--from", "coco", "--boxes-of", wrong) == 2


def test_units_are_declared(shards, tmp_path, convert, read, samples, capsys):
    """Shares in COCO's form are refused until they are declared."""
    assert convert(shards, tmp_path / "c", "coco") == 0
    path = tmp_path / "c" / "annotations.json"

    def as_shares(value):
        for a in value["annotations"]:
            a["bbox"] = [v / side for v, side in zip(a["bbox"], (203, 97) * 2, strict=True)]

    edit(path, as_shares)
    assert convert(path, tmp_path / "no", "shards", "--from", "coco") == 2
    assert convert(path, tmp_path / "s", "shards", "--from", "coco", "--box-unit", "unit") == 0
    assert [s.box_px for s in read(tmp_path / "s")] == [s.box_px for s in samples]
    assert convert(shards, tmp_path / "tokens", "jsonl-paligemma") == 0
    source = tmp_path / "tokens" / "annotations.jsonl"
    assert convert(source, tmp_path / "t", "shards", "--from", "jsonl-paligemma", "--box-unit", "pixels") == 2
    assert "defines the unit of its boxes" in capsys.readouterr().err
    assert convert(shards, tmp_path / "p", "coco", "--pictures", str(shards)) == 2
    assert "--from predictions only" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["train: ../../elsewhere\nnames: [a]\n", "names: [a]\n", "train: images\nnames: 3\n"])
def test_data_yaml_that_cannot_be_used(text, tmp_path, convert, capsys):
    (tmp_path / "data.yaml").write_text(text)
    (tmp_path / "images").mkdir()
    assert convert(tmp_path / "data.yaml", tmp_path / "s", "shards", "--from", "yolo", "--category", "x") == 2
    assert "data.yaml" in capsys.readouterr().err


def test_a_download_of_roboflow(tmp_path, convert, read, caplog):
    """Its data.yaml leads out of its own folder, and a class is a number in text."""
    for part in ("train", "valid"):
        (tmp_path / part / "images").mkdir(parents=True)
        (tmp_path / part / "labels").mkdir()
        (tmp_path / part / "images" / "a_jpg.rf.12.jpg").write_bytes(build(0).image)
        (tmp_path / part / "labels" / "a_jpg.rf.12.txt").write_text(
            "1 0.5 0.5 0.2 0.4\n0 0.1 0.2 0.1 0.2 0.3 0.4 0.5\n"
        )
    (tmp_path / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['1', 737]\n")
    assert convert(tmp_path / "data.yaml", tmp_path / "s", "shards", "--from", "yolo", "--category", "x") == 0
    assert [(s.key, s.entity) for s in read(tmp_path / "s")] == [("a_jpg-rf-12", "737"), ("a_jpg-rf-12-2", "737")]
    assert "is not four numbers" in caplog.text  # the line with a polygon
