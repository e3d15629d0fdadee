"""Rows of published files that are damaged, mistyped or of another make: each is named, counted and skipped."""

from __future__ import annotations

import json

import pytest

from kvg.errors import DataError
from kvg.formats.stores import open_store
from kvg.shards.reader import Tally

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

NAME = "<|object_ref_start|>Merlin<|object_ref_end|>"
ASK = f"<image>Find and give the bounding box of {NAME}"
REPLY = f"{NAME}<|box_start|>(100,200),(500,800)<|box_end|>"


def read(path, **options):
    tally = Tally(log_problems=False)
    return [sample for part in open_store(path, **options).parts() for _, sample in part.read(tally)], tally


def turns(*texts, roles=("user", "assistant")):
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]


def record(**changes):
    return {"messages": turns(ASK, REPLY), "images": ["a.jpg"], **changes}


@pytest.fixture
def sharegpt(tmp_path, make_sample):
    """Writes records between two good ones, and reads them."""
    (tmp_path / "a.jpg").write_bytes(make_sample(0).image)

    def write(*records, encoding="utf-8"):
        path = tmp_path / "cot-sft-bird.json"
        path.write_text(json.dumps([record(), *records, record()]), encoding)
        return read(path)

    return write


BAD = [
    (None, "record: None must be an object"),
    ([], "record: [] must be an object"),
    (record(messages=["hello", "x"]), "messages[0]: 'hello' must be an object"),
    (record(messages="hello"), "messages: 'hello' must be a list"),
    (record(messages=None), "messages: is missing"),
    (record(messages=[]), "messages: has no user turn"),
    (record(messages=turns(ASK, 5)), "messages[1]: content: 5 must be text"),
    (record(messages=turns(None, REPLY)), "messages[0]: content: is missing"),
    (record(messages=turns({"text": ASK}, REPLY)), "messages[0]: content: {"),
    (record(messages=[{"role": 5, "content": ASK}]), "messages[0]: role: 5 must be text"),
    (record(messages=[{"content": ASK}]), "messages[0]: role: is missing"),
    (record(messages=turns(ASK, REPLY, roles=("user", "tool"))), "messages[1]: role: 'tool' is none of"),
    (record(messages=turns(ASK, REPLY, ASK, REPLY, roles=("user", "assistant") * 2)), "has the turns user, "),
    (record(messages=turns(ASK, REPLY, ASK, roles=("user", "assistant", "user"))), "write each question"),
    (record(messages=turns(REPLY, ASK, roles=("assistant", "user"))), "has the turns assistant, user"),
    (record(messages=turns("\ud800" + ASK, REPLY)), "half a surrogate pair"),
    (record(messages=turns(f"<image>{ASK}", REPLY)), "has 2 placeholders of pictures"),
    (record(messages=turns(ASK.replace("image", "video"), REPLY)), "has 1 placeholders of pictures or films"),
    (record(messages=turns(ASK, f"<image>{REPLY}")), "answer: '<image>"),
    (record(messages=turns(ASK + "<|vision_start|>", REPLY)), "question: may not hold <|vision_start|>"),
    (record(messages=turns(ASK, REPLY + "<|image_pad|>")), "answer: may not hold <|image_pad|>"),
    (record(messages=turns(ASK, f"<think><|im_end|></think><answer>{REPLY}</answer>")), "may not hold <|im_end|>"),
    (record(messages=turns(ASK, f"<think>1 <box:0></think><answer>{REPLY}</answer>")), "answer: '<think>1 <box:0>"),
    (record(messages=turns(ASK.replace("Merlin", "<think>Merlin"), REPLY)), "entity: may not hold <think>"),
    (record(messages=turns(ASK.replace("Merlin", "<|im_end|>"), REPLY)), "may not hold <|im_end|>"),
    (record(images=["a.jpg", "a.jpg"]), "images: ['a.jpg', 'a.jpg'] must be a list of one path"),
    (record(images=[]), "images: [] must be a list of one path"),
    (record(images=[5]), "images: 5 must be text"),
    (record(images=[""]), "images: '' must be text"),
    (record(images=None), "images: None must be"),
    (record(images=["../a.jpg"]), "images: '../a.jpg' is no path below a folder"),
    (record(images=["/etc/passwd"]), "images: /etc/passwd is not in"),
    (record(images=["a" * 5000]), "images: "),
    (record(images=["a\0.jpg"]), "is no path below a folder"),
    (record(videos=["a.mp4"]), "videos: ['a.mp4'] cannot be read"),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_a_bad_record_is_named_and_passed_over(sharegpt, bad, message):
    samples, tally = sharegpt(bad)
    assert len(samples) == 2
    assert tally.num_bad == 1
    assert "record 1" in tally.problems[0]
    assert message in tally.problems[0]


@pytest.mark.parametrize(
    "good",
    [
        record(images="a.jpg"),
        record(images=["./a.jpg"]),
        record(images=["/mnt/data/of/somebody/a.jpg"]),  # of another machine: its leading folders are dropped
        record(messages=turns("Be brief.", ASK, REPLY, roles=("system", "user", "assistant"))),
        record(messages=turns(ASK, REPLY, roles=("Human", "GPT"))),
        record(system="Be brief.", tools=""),
    ],
)
def test_records_of_the_same_meaning_are_read(sharegpt, good):
    samples, tally = sharegpt(good)
    assert [sample.box_px for sample in samples] == [(20.0, 20.0, 100.0, 80.0)] * 3
    assert not tally.problems


def test_a_byte_order_mark_is_no_part_of_the_json(sharegpt):
    assert len(sharegpt(encoding="utf-8-sig")[0]) == 2


def table(path, rows, schema=None, **options):
    pq.write_table(pa.Table.from_pylist(rows, schema), path, **options)
    return path


@pytest.fixture
def verl(make_sample):
    return {
        "prompt": [{"role": "user", "content": ASK}],
        "images": [{"bytes": make_sample(0).image}],
        "reward_model": {"ground_truth": REPLY},
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": None}, "prompt: None must be a list"),
        ({"prompt": []}, "prompt: holds the turns none"),
        ({"prompt": ["hello"]}, "prompt[0]: 'hello' must be an object"),
        ({"prompt": "hello"}, "prompt: 'hello' must be a list"),
        ({"prompt": [{"role": "user"}]}, "prompt: content: is missing"),
        ({"prompt": [{"role": "user", "content": 5}]}, "prompt: content: 5 must be text"),
        ({"prompt": [{"content": ASK}]}, "prompt: holds the turns None"),
        ({"prompt": turns(ASK, REPLY, ASK, roles=("user", "assistant", "user"))}, "holds the turns 'user', "),
        ({"images": None}, "images: None must be a list"),
        ({"images": []}, "images: holds 0 pictures"),
        ({"images": ["a.jpg"]}, "images: contains no bytes"),
        ({"images": [None]}, "images: contains no bytes"),
        ({"images": [{"bytes": b"a"}, {"bytes": b"b"}]}, "images: holds 2 pictures"),
        ({"images": [{"path": "a.jpg"}]}, "images: contains no bytes"),
        ({"reward_model": None}, "reward_model: None must be an object"),
        ({"reward_model": "x"}, "reward_model: 'x' must be an object"),
        ({"reward_model": {"style": "rule"}}, "reward_model: ground_truth: is missing"),
        ({"reward_model": {"ground_truth": 5}}, "ground_truth: 5 must be text"),
    ],
)  # fmt: skip
def test_verl_rows_of_another_make(tmp_path, verl, change, message):
    samples, tally = read(table(tmp_path / "verl-grpo-bird.parquet", [{**verl, **change}]))
    assert samples == []
    assert tally.num_bad == 1
    assert "row 0" in tally.problems[0]
    assert message in tally.problems[0]


def test_content_as_a_list_of_parts(tmp_path, verl):
    parts = [{"type": "image", "text": None}, {"type": "text", "text": ASK.removeprefix("<image>")}]
    (sample,), tally = read(
        table(tmp_path / "verl-grpo-bird.parquet", [{**verl, "prompt": [{"role": "user", "content": parts}]}])
    )
    assert (sample.entity, tally.problems) == ("Merlin", [])


def bench(data, number=0, **changes):
    row = {"question_id": f"bird/{number}", "category": "bird", "question": ASK, "answer": REPLY}
    return {**row, "image": {"bytes": data}, **changes}


@pytest.mark.parametrize(
    "change",
    [
        {"image": None},
        {"image": "a.jpg"},
        {"image": 5},
        {"image": [1, 2]},
        {"question_id": 7},
        {"question": ["x"]},
        {"category": {"a": 1}},
        {"answer": 0.5},
    ],
)
def test_benchmark_rows_of_other_types(tmp_path, make_sample, change):
    samples, tally = read(table(tmp_path / "kvg-bench.parquet", [bench(make_sample(0).image, **change)]))
    assert samples == []
    assert tally.num_bad == 1
    assert f"row 0: {next(iter(change))}" in tally.problems[0]


def test_a_damaged_row_group_costs_its_own_rows(tmp_path, make_sample):
    rows = [bench(make_sample(n).image, n) for n in range(6)]
    path = table(tmp_path / "kvg-bench.parquet", rows, row_group_size=2, use_dictionary=False)
    meta = pq.ParquetFile(path).metadata.row_group(1).column(4)
    data = bytearray(path.read_bytes())
    data[meta.data_page_offset : meta.data_page_offset + 20] = b"\xff" * 20
    path.write_bytes(data)
    samples, tally = read(path)
    assert [s.key for s in samples] == ["bird-0", "bird-1", "bird-4", "bird-5"]
    assert (tally.num_bad, tally.num_cut) == (0, 1)
    assert "rows 2 to 3: are damaged from row 2 on" in tally.problems[0]


def test_texts_that_are_no_utf_8_are_counted(tmp_path, make_sample):
    columns = {name: [value] for name, value in bench(make_sample(0).image).items()}
    whole = pa.table(columns)
    broken = pa.array([b"\xff\xfe Merlin"], pa.binary()).view(pa.string())
    path = tmp_path / "kvg-bench.parquet"
    pq.write_table(whole.set_column(2, "question", broken), path)
    samples, tally = read(path)
    assert samples == []
    assert tally.num_cut == 1


def test_two_columns_of_one_name(tmp_path, make_sample):
    row = bench(make_sample(0).image)
    arrays = [pa.array([value]) for value in row.values()]
    pq.write_table(pa.Table.from_arrays([*arrays, arrays[3]], [*row, "answer"]), tmp_path / "kvg-bench.parquet")
    with pytest.raises(DataError, match="answer: is the name of two columns"):
        open_store(tmp_path / "kvg-bench.parquet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"category": 5}, "category: 5 must be text"),
        ({"category": ["bird"]}, "category: ['bird'] must be text"),
        ({"label": {"a": 1}}, "label: {'a': 1} must be text"),
        ({"label": "a <|endoftext|>", "options": None}, "may not hold <|endoftext|>"),
        ({"options": {"a": 1}}, "options: {'a': 1} must be a list of names"),
        ({"options": ["Merlin", 5]}, "options: ['Merlin', 5] must be a list of names"),
        ({"options": ["Merlin", ["Hobby"]]}, "must be a list of names"),
        ({"options": ["Merlin", "<|endoftext|>"]}, "may not hold <|endoftext|>"),
        ({"image": 5}, "image: 5 must be text"),
        ({"image": None}, "image: is missing"),
    ],
)
def test_labels_of_other_types(tmp_path, make_sample, change, message):
    (tmp_path / "a.jpg").write_bytes(make_sample(0).image)
    good = {"image": "a.jpg", "label": "Merlin", "options": ["Merlin", "Hobby"], "category": "bird"}
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (good, {**good, **change}, good)))
    samples, tally = read(path)
    assert len(samples) == 2
    assert tally.num_bad == 1
    assert message in tally.problems[0]
