"""Pictures that a list names: in a folder, in an archive beside it, and nowhere else."""

from __future__ import annotations

import json
import zipfile

import pytest

from kvg.errors import DataError
from kvg.formats.listed_pictures import PictureFolder

from .test_bad_rows import read, record


def packed(folder, members):
    with zipfile.ZipFile(folder / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def sharegpt_of(folder, *names):
    path = folder / "cot-sft-bird.json"
    path.write_text(json.dumps([record(images=[name]) for name in names]))
    return path


def test_pictures_in_an_archive(tmp_path, make_sample):
    image = make_sample(0).image
    packed(tmp_path, {"a.jpg": image, "images/b.jpg": image, "../../outside.jpg": image, "d.jpg": b""})
    path = sharegpt_of(tmp_path, "a.jpg", "images/a.jpg", "images/b.jpg", "../../outside.jpg", "d.jpg", "e.jpg")
    samples, tally = read(path)
    assert [s.provenance["image"] for s in samples] == ["a.jpg", "images/a.jpg", "images/b.jpg"]
    messages = ("is no path below", "is no picture", "neither in")
    assert [message in problem for message, problem in zip(messages, tally.problems, strict=True)] == [True] * 3
    assert not list(tmp_path.parent.rglob("outside.jpg"))


def test_a_damaged_archive_costs_its_pictures_alone(tmp_path, make_sample):
    image = make_sample(0).image
    packed(tmp_path, {"a.jpg": image, "b.jpg": image})
    data = bytearray((tmp_path / "images.zip").read_bytes())
    data[60:90] = bytes(30)  # inside the first member
    (tmp_path / "images.zip").write_bytes(data)
    samples, tally = read(sharegpt_of(tmp_path, "a.jpg", "b.jpg"))
    assert [s.provenance["image"] for s in samples] == ["b.jpg"]
    assert "a.jpg in " in tally.problems[0]
    assert "cannot be unpacked" in tally.problems[0]
    (tmp_path / "images.zip").write_bytes(data[: len(data) // 2])
    samples, tally = read(sharegpt_of(tmp_path, "a.jpg", "b.jpg"))
    assert samples == []
    assert [("images.zip: zip: cannot be opened" in problem) for problem in tally.problems] == [True, True]


def test_an_archive_bomb_is_not_unpacked(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.jpg", "w") as file,
    ):
        for _ in range(300):
            file.write(bytes(1 << 20))
    with pytest.raises(DataError, match="is larger than 256 MiB"):
        PictureFolder(tmp_path).read("record 0", "images", "a.jpg")


def test_a_relative_path_means_that_file_and_no_other(tmp_path, make_sample):
    (tmp_path / "a.jpg").write_bytes(make_sample(0).image)
    samples, tally = read(sharegpt_of(tmp_path, "birds/a.jpg"))
    assert samples == []
    assert "birds/a.jpg is neither in" in tally.problems[0]


def test_the_folder_of_pictures_may_be_another(tmp_path, make_sample):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.jpg").write_bytes(make_sample(0).image)
    assert len(read(sharegpt_of(tmp_path, "a.jpg"), images=tmp_path / "pictures")[0]) == 1
