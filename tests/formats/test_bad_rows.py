"""Rows of published files that are damaged, mistyped or of another make: each is named, counted and passed over."""

from __future__ import annotations

import json
import zipfile

import pytest

from kvg.errors import DataError
from kvg.formats.listed_pictures import PictureFolder
from kvg.formats.stores import open_store
from kvg.shards.reader import Tally

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

NAME = "<|object_ref_start|>Merlin<|object_ref_end|>"
ASKED = f"<image>Find and give the bounding box of {NAME}"
TOLD = f"{NAME}<|box_start|>(100,200),(500,800)<|box_end|>"


def read(path, **options):
    tally = Tally(log_problems=False)
    return [sample for part in open_store(path, **options).parts() for _, sample in part.read(tally)], tally


def turns(*texts, roles=("user", "assistant")):
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]


def record(**changes):
    return {"messages": turns(ASKED, TOLD), "images": ["a.jpg"], **changes}


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
    (record(messages=[]), "messages: no user turn"),
    (record(messages=turns(ASKED, 5)), "messages[1]: content: 5 must be text"),
    (record(messages=turns(None, TOLD)), "messages[0]: content: is missing"),
    (record(messages=turns({"text": ASKED}, TOLD)), "messages[0]: content: {"),
    (record(messages=[{"role": 5, "content": ASKED}]), "messages[0]: role: 5 must be text"),
    (record(messages=[{"content": ASKED}]), "messages[0]: role: is missing"),
    (record(messages=turns(ASKED, TOLD, roles=("user", "tool"))), "messages[1]: role: 'tool' is none of"),
    (record(messages=turns(ASKED, TOLD, ASKED, TOLD, roles=("user", "assistant") * 2)), "hold the turns user, "),
    (record(messages=turns(ASKED, TOLD, ASKED, roles=("user", "assistant", "user"))), "give each question"),
    (record(messages=turns(TOLD, ASKED, roles=("assistant", "user"))), "hold the turns assistant, user"),
    (record(messages=turns("\ud800" + ASKED, TOLD)), "half a surrogate pair"),
    (record(messages=turns(f"<image>{ASKED}", TOLD)), "stands for 2 pictures"),
    (record(messages=turns(ASKED.replace("image", "video"), TOLD)), "stands for 1 pictures or films"),
    (record(messages=turns(ASKED, f"<image>{TOLD}")), "answer: '<image>"),
    (record(messages=turns(ASKED + "<|vision_start|>", TOLD)), "question: may not hold <|vision_start|>"),
    (record(messages=turns(ASKED, TOLD + "<|image_pad|>")), "answer: may not hold <|image_pad|>"),
    (record(messages=turns(ASKED, f"<think><|im_end|></think><answer>{TOLD}</answer>")), "may not hold <|im_end|>"),
    (record(messages=turns(ASKED, f"<think>1 <box:0></think><answer>{TOLD}</answer>")), "answer: '<think>1 <box:0>"),
    (record(messages=turns(ASKED.replace("Merlin", "<think>Merlin"), TOLD)), "entity: may not hold <think>"),
    (record(messages=turns(ASKED.replace("Merlin", "<|im_end|>"), TOLD)), "may not hold <|im_end|>"),
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
        record(messages=turns("Be brief.", ASKED, TOLD, roles=("system", "user", "assistant"))),
        record(messages=turns(ASKED, TOLD, roles=("Human", "GPT"))),
        record(system="Be brief.", tools=""),
    ],
)
def test_records_of_the_same_meaning_are_read(sharegpt, good):
    samples, tally = sharegpt(good)
    assert [sample.box_px for sample in samples] == [(20.0, 20.0, 100.0, 80.0)] * 3
    assert not tally.problems


def test_a_byte_order_mark_is_no_part_of_the_json(sharegpt):
    assert len(sharegpt(encoding="utf-8-sig")[0]) == 2


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
    packed(tmp_path, {"a.jpg": image, "images/b.jpg": image, "../../c.jpg": image, "d.jpg": b""})
    path = sharegpt_of(tmp_path, "a.jpg", "images/a.jpg", "images/b.jpg", "../../c.jpg", "d.jpg", "e.jpg")
    samples, tally = read(path)
    assert [s.provenance["image"] for s in samples] == ["a.jpg", "images/a.jpg", "images/b.jpg"]
    messages = ("is no path below", "is no picture", "neither in")
    assert [message in problem for message, problem in zip(messages, tally.problems, strict=True)] == [True] * 3
    assert not list(tmp_path.parent.rglob("c.jpg"))


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
    with pytest.raises(DataError, match="says that it is huge"):
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


def table(path, rows, schema=None, **options):
    pq.write_table(pa.Table.from_pylist(rows, schema), path, **options)
    return path


@pytest.fixture
def verl(make_sample):
    return {
        "prompt": [{"role": "user", "content": ASKED}],
        "images": [{"bytes": make_sample(0).image}],
        "reward_model": {"ground_truth": TOLD},
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
        ({"prompt": [{"content": ASKED}]}, "prompt: holds the turns None"),
        ({"prompt": turns(ASKED, TOLD, ASKED, roles=("user", "assistant", "user"))}, "holds the turns 'user', "),
        ({"images": None}, "images: None must be a list"),
        ({"images": []}, "images: holds 0 pictures"),
        ({"images": ["a.jpg"]}, "images: holds no bytes"),
        ({"images": [None]}, "images: holds no bytes"),
        ({"images": [{"bytes": b"a"}, {"bytes": b"b"}]}, "images: holds 2 pictures"),
        ({"images": [{"path": "a.jpg"}]}, "images: holds no bytes"),
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
    parts = [{"type": "image", "text": None}, {"type": "text", "text": ASKED.removeprefix("<image>")}]
    (sample,), tally = read(
        table(tmp_path / "verl-grpo-bird.parquet", [{**verl, "prompt": [{"role": "user", "content": parts}]}])
    )
    assert (sample.entity, tally.problems) == ("Merlin", [])


def bench(data, number=0, **changes):
    row = {"question_id": f"bird/{number}", "category": "bird", "question": ASKED, "answer": TOLD}
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
