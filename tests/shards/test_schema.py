from __future__ import annotations

import io
import json

import pytest
from PIL import Image

from kvg.errors import DataError
from kvg.shards.schema import check_image, decode_record, encode_record
from kvg.types import SceneObject


def test_round_trip(make_sample):
    sample = make_sample(1)
    members = encode_record(sample)
    assert set(members) == {"json", "jpg"}
    assert decode_record("s.tar", "k0001", members) == sample


def test_png_round_trip(make_sample):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48)).save(buffer, "PNG")
    sample = make_sample(0, image=buffer.getvalue())
    members = encode_record(sample)
    assert set(members) == {"json", "png"}
    assert decode_record("s.tar", "k0000", members) == sample


def test_the_record_is_plain_json(make_sample):
    record = json.loads(encode_record(make_sample(1))["json"])
    assert record["schema_version"] == 1
    assert record["entity"] == "Merlin"
    assert record["objects"][1] == {"entity": "Merlin", "box_px": [30.5, 6, 60, 40], "note": "grey, plain"}


FIELDS = (
    "schema_version",
    "key",
    "width",
    "height",
    "category",
    "split",
    "knowledge",
    "target",
    "objects",
    "rationale",
)


@pytest.mark.parametrize("name", [*FIELDS, "rationale", "provenance"])
def test_missing_field(make_sample, name):
    members = encode_record(make_sample(1))
    record = json.loads(members["json"])
    del record[name]
    with pytest.raises(DataError) as caught:
        decode_record("s.tar", "k0001", {**members, "json": json.dumps(record).encode()})
    assert (caught.value.where, caught.value.field) == ("s.tar sample k0001", name)
    assert "is missing" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"target": 2}, "target"),
        ({"target": -1}, "target"),
        ({"target": "1"}, "target"),
        ({"target": True}, "target"),
        ({"category": ""}, "category"),
        ({"split": "train"}, "split"),
        ({"knowledge": "maybe"}, "knowledge"),
        ({"objects": []}, "objects"),
        ({"objects": ["Merlin"]}, "objects[0]"),
        ({"objects": [{"entity": "A", "box_px": [1, 2, 3], "note": ""}], "target": 0}, "objects[0].box_px"),
        ({"objects": [{"entity": "A", "box_px": [1, 2, 3, None], "note": ""}], "target": 0}, "objects[0].box_px"),
        ({"objects": [{"box_px": [1, 2, 3, 4], "note": ""}], "target": 0}, "objects[0].entity"),
        ({"rationale": "Look: <box:2>"}, "rationale"),
        ({"schema_version": 2}, "schema_version"),
        ({"key": "a.b"}, "key"),
        ({"width": 65}, "width"),
    ],
)
def test_wrong_field(make_sample, change, field):
    members = encode_record(make_sample(1))
    record = {**json.loads(members["json"]), **change}
    with pytest.raises(DataError) as caught:
        decode_record("s.tar", "k0001", {**members, "json": json.dumps(record).encode()})
    assert caught.value.field == field


@pytest.mark.parametrize(
    "box", [(4, 6, 65, 30), (4, 6, 4, 30), (-1, 6, 20, 30), (4, 30, 20, 6), (float("nan"), 6, 20, 30)]
)
def test_box_outside_its_image(make_sample, box):
    sample = make_sample(0, objects=(SceneObject("A", box),), rationale="")
    with pytest.raises(DataError, match=r"k0000: objects\[0\]\.box_px: .* does not lie inside the 64x48 image"):
        encode_record(sample)


def test_truncated_jpeg(make_sample):
    members = encode_record(make_sample(1))
    for kept in (len(members["jpg"]) // 2, len(members["jpg"]) - 1):
        with pytest.raises(DataError, match=r"s\.tar sample k0001: image: is cut off"):
            decode_record("s.tar", "k0001", {**members, "jpg": members["jpg"][:kept]})


def test_neither_jpeg_nor_png(make_sample):
    members = encode_record(make_sample(1))
    with pytest.raises(DataError, match="image: is neither JPEG nor PNG"):
        decode_record("s.tar", "k0001", {**members, "jpg": b"GIF89a"})


def test_damage_in_the_middle_needs_decoding(make_sample):
    buffer = io.BytesIO()
    Image.open(io.BytesIO(make_sample(1).image)).save(buffer, "PNG")
    good = buffer.getvalue()
    sample = make_sample(1, image=good[:3000] + bytes(50) + good[3050:])
    check_image(sample, "x")
    with pytest.raises(DataError, match="cannot be decoded"):
        check_image(sample, "x", decode=True)


@pytest.mark.parametrize(("members", "field"), [({"jpg": b""}, "json"), ({"json": b"{}"}, "image")])
def test_half_a_record(members, field):
    with pytest.raises(DataError) as caught:
        decode_record("s.tar", "k", members)
    assert caught.value.field == field


@pytest.mark.parametrize("text", [b"{", b"[]", b"\xff\xfe"])
def test_json_that_is_none(make_sample, text):
    with pytest.raises(DataError, match="json"):
        decode_record("s.tar", "k0001", {**encode_record(make_sample(1)), "json": text})


FIRST = {"target": 0, "entity": "Merlin"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objects": [{"entity": "Merlin", "box_px": [0.1, 0.2, 0.3, 0.4], "note": ""}], **FIRST}, "lies in 0-1; give"),
        ({"objects": [{"entity": "Merlin", "box_px": [1, 2, 3, 10**400], "note": ""}], **FIRST}, "is not four numbers"),
        ({"objects": [{"entity": "Merlin", "box_px": [1, 2, 3, True], "note": ""}], **FIRST}, "is not four numbers"),
        ({"category": "bird <|im_end|>"}, "category: may not hold <|im_end|>"),
        ({"category": "\ud800"}, "category: '\\ud800' holds half a surrogate pair"),
        ({"rationale": "Look: <|image_pad|>."}, "rationale: may not hold <|image_pad|>"),
        ({"rationale": "</think>"}, "rationale: may not hold </think>"),
        ({"rationale": f"<box:{'9' * 5000}>"}, "does not stand for an object"),
        ({"provenance": {"options": 5}}, "provenance.options: 5 must be a list of names"),
        ({"provenance": {"licences": "CC0"}}, "provenance.licences: 'CC0' must be a list of names"),
        ({"provenance": {"question_id": 5}}, "provenance.question_id: 5 must be text"),
        ({"provenance": {"options": ["a", "<|im_start|>"]}}, "provenance.options: may not hold <|im_start|>"),
    ],
)
def test_texts_and_units_of_records(make_sample, change, message):
    members = encode_record(make_sample(1))
    record = json.loads(members["json"]) | change
    with pytest.raises(DataError) as caught:
        decode_record("s.tar", "k0001", {**members, "json": json.dumps(record).encode()})
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["Merlin <|image_pad|>", "<box:1>", "<think>", "a<image>", "<|object_ref_end|>"])
def test_names_that_would_steer_a_model_cannot_be_written(make_sample, name):
    sample = make_sample(1)
    objects = (SceneObject(name, sample.objects[0].box_px), *sample.objects[1:])
    with pytest.raises(DataError, match=r"objects\[0\].entity: may not hold"):
        encode_record(make_sample(1, objects=objects))


def test_typed_fields_lie_in_the_provenance_of_the_record(make_sample):
    typed = {"options": ("Merlin", "Hobby"), "licences": ("CC0",), "question_id": "bird/7"}
    sample = make_sample(1, **typed, provenance={"index": 1})
    members = encode_record(sample)
    assert json.loads(members["json"])["provenance"] == {
        "index": 1,
        "licences": ["CC0"],
        "options": ["Merlin", "Hobby"],
        "question_id": "bird/7",
    }
    assert decode_record("s.tar", sample.key, members) == sample
    again = encode_record(decode_record("s.tar", sample.key, members))
    assert json.loads(again["json"]) == json.loads(members["json"])


def test_typed_fields_are_not_given_as_provenance(make_sample):
    with pytest.raises(DataError, match="provenance: licences, options: give the field of the sample instead"):
        encode_record(make_sample(1, provenance={"options": ["Merlin"], "licences": []}))


def test_provenance_that_json_cannot_hold(make_sample):
    for value in ({"a": "\ud800"}, {"a": {1, 2}}, {"a": b"x"}):
        with pytest.raises(DataError, match="provenance: cannot be written as JSON"):
            encode_record(make_sample(1, provenance=value))
