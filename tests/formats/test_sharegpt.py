from __future__ import annotations

import json
import shutil

import pytest

from kvg.errors import DataError
from kvg.formats.sharegpt import ShareGPTFile, write_sharegpt
from kvg.formats.stores import open_store
from kvg.shards.reader import Tally


def read_all(store, tally=None):
    return [sample for part in store.parts() for _, sample in part.read(tally)]


def write_json(path, records, image=b""):
    (path.parent / "images").mkdir(exist_ok=True)
    if image:
        (path.parent / "images/1.jpg").write_bytes(image)
    path.write_text(json.dumps(records))
    return path


def record(question, answer, **changes):
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "images": ["images/1.jpg"], **changes}


QUESTION = "<image>Find and give the bounding box of <|object_ref_start|>Merlin<|object_ref_end|>  Output the thinking"
ANSWER = (
    "<think>The first bird <|box_start|>(100,100),(400,600)<|box_end|> is brown, the second (501,201),(900,900) is "
    "grey, so (501,201),(900,900) it is.</think>\n<answer><|object_ref_start|>Merlin<|object_ref_end|>"
    "<|box_start|>(501,201),(900,900)<|box_end|></answer>"
)


def test_a_published_record_by_hand(tmp_path, make_sample):
    path = write_json(tmp_path / "cot-sft-bird.json", [record(QUESTION, ANSWER)], make_sample(0).image)
    (sample,) = read_all(ShareGPTFile(path))
    assert (sample.entity, sample.category, sample.split) == ("Merlin", "bird", "seen")
    assert (sample.width, sample.height, sample.target) == (200, 100, 1)
    assert sample.objects[0].box_px == (20.0, 10.0, 80.0, 60.0)
    assert sample.box_px == pytest.approx((100.2, 20.1, 180.0, 90.0))
    assert sample.rationale == "The first bird <box:0> is brown, the second <box:1> is grey, so <box:1> it is."


def test_older_spelling_and_answer_alone(tmp_path, make_sample):
    turns = [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": "(501,201),(900,900)"}]
    records = [{"conversations": turns, "images": ["images/1.jpg"]}]
    (sample,) = read_all(ShareGPTFile(write_json(tmp_path / "sft-dog.json", records, make_sample(0).image)))
    assert (sample.rationale, sample.category, sample.split, len(sample.objects)) == ("", "dog", "unseen", 1)


def test_round_trip(tmp_path, make_sample):
    samples = [make_sample(i) for i in range(4)]
    assert write_sharegpt(samples, tmp_path / "cot-sft-bird.json") == 4
    store = open_store(tmp_path / "cot-sft-bird.json")
    assert [p.num_samples for p in store.parts()] == [4]
    for before, after in zip(samples, read_all(store), strict=True):
        assert (after.image, after.entity, after.rationale) == (before.image, before.entity, before.rationale)
        assert after.box_px == pytest.approx(before.box_px)
        assert [o.box_px for o in after.objects] == [pytest.approx(o.box_px) for o in before.objects]


def test_images_in_a_zip(tmp_path, make_sample):
    write_sharegpt([make_sample(0)], tmp_path / "cot-sft-bird.json")
    shutil.make_archive(str(tmp_path / "images"), "zip", tmp_path, "images")
    shutil.rmtree(tmp_path / "images")
    assert len(read_all(ShareGPTFile(tmp_path / "cot-sft-bird.json"))) == 1


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (record("<image>Where is it?", ANSWER.replace("Merlin", "")), "record 1: question"),
        (record(QUESTION, "<think>x</think><answer>no idea</answer>"), "record 1: answer: 'no idea' contains no box"),
        (
            record(QUESTION, "(900,900),(100,100)"),
            "record 1: answer: (900.0, 900.0, 100.0, 100.0) as [x1, y1, x2, y2] in relative_1000 has no area",
        ),
        (record(QUESTION, ANSWER, images=["images/2.jpg"]), "record 1: images: images/2.jpg is neither in"),
        (record(QUESTION, ANSWER, images=[]), "record 1: images"),
        ({"images": ["images/1.jpg"]}, "record 1: messages: is missing"),
        (record(QUESTION, ""), "record 1: messages: has no assistant turn"),
        ("text", "record 1: record"),
    ],
)
def test_a_bad_record_is_named_and_passed_over(tmp_path, make_sample, bad, message, caplog):
    path = write_json(tmp_path / "cot-sft-bird.json", [record(QUESTION, ANSWER), bad], make_sample(0).image)
    tally = Tally()
    assert len(read_all(ShareGPTFile(path), tally)) == 1
    assert tally.num_bad == 1
    assert message in caplog.text


def test_truncated_image_is_passed_over(tmp_path, make_sample, caplog):
    path = write_json(tmp_path / "cot-sft-bird.json", [record(QUESTION, ANSWER)], make_sample(0).image[:-30])
    assert read_all(ShareGPTFile(path)) == []
    assert "record 0" in caplog.text
    assert "cut off" in caplog.text


@pytest.mark.parametrize(("content", "message"), [("{", "json"), ("{}", "must be a list"), ("[]", "are missing")])
def test_files_that_cannot_be_used(tmp_path, content, message):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=message):
        open_store(tmp_path / "x.json")


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="cannot be opened"):
        open_store(tmp_path / "x.json")


def test_unknown_suffix(tmp_path):
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(DataError, match="suffix: must be"):
        open_store(tmp_path / "x.txt")
