"""Questions of several choices: miniatures of FOCI's files, and plain lists."""

from __future__ import annotations

import csv
import json
import pickle
from collections import Counter

import pytest
from PIL import Image

from kvg.errors import DataError
from kvg.evaluation.records.question import Question
from kvg.formats.recognition import Recognition
from kvg.formats.stores import open_store
from kvg.shards.reader import Tally
from kvg.text.box_codec import ImageSize, RelativeCodec

MODEL = "ViT-L-14-laion2b_s32b_b82k-4"
# The right name always comes first, names have underscores in the sets that came later, a picture comes twice.
AIRCRAFT = {
    "707-320": [
        {
            "image": "data/images/1.jpg",
            "options": ["707-320", "757-200", "727-200", "Fokker 100"],
            "groundtruth": "707-320",
        },
        {"image": "data/images/2.jpg", "options": ["707-320", "DC-8", "L-1011", "727-200"], "groundtruth": "707-320"},
    ],
    "727-200": [
        {
            "image": "data/images/3.jpg",
            "options": ["727-200", "MD-80", "Fokker 100", "Boeing 717"],
            "groundtruth": "727-200",
        }
    ],
}
DOGS = {
    "Japanese_spaniel": [
        {
            "image": "images/n02085782-Japanese_spaniel/1.jpg",
            "options": ["Japanese_spaniel", "Shih-Tzu", "papillon", "Mexican_hairless"],
            "groundtruth": "Japanese_spaniel",
        },
        {
            "image": "images/n02085782-Japanese_spaniel/1.jpg",
            "options": ["Japanese_spaniel", "Pekinese", "papillon", "toy_terrier"],
            "groundtruth": "Japanese_spaniel",
        },
    ]
}
NEWTS = {
    "common newt": [
        {
            "image": "/media/somebody/icbench/imagenet6k/n01630670/1.JPEG",
            "options": ["common newt", "slender salamander", "tadpole", "axolotl"],
            "groundtruth": "common newt",
        }
    ]
}


@pytest.fixture
def pictures(tmp_path):
    """A folder with all the pictures that the lists name."""
    root = tmp_path / "pictures"
    for number, name in enumerate(("data/images/1.jpg", "data/images/2.jpg", "data/images/3.jpg", "n01630670/1.JPEG")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40 + number, 30), (0, 50 * number, 0)).save(root / name, "JPEG")
    (root / "n02085782-Japanese_spaniel").mkdir()
    # As in the wild: a PNG that is called .jpg, and a GIF, which shards do not store.
    Image.new("RGB", (20, 24), (9, 9, 9)).save(root / "n02085782-Japanese_spaniel/1.jpg", "PNG")
    Image.new("P", (22, 24)).save(root / "cat.jpg", "GIF")
    return root


def read_all(store, tally=None):
    return [sample for part in store.parts() for _, sample in part.read(tally)]


def foci(folder, name, content):
    path = folder / f"{name}-{MODEL}.json"
    path.write_text(json.dumps(content))
    return path


def test_foci_row_by_row(tmp_path, pictures):
    store = open_store(foci(tmp_path, "fgvc_aircraft", AIRCRAFT), pictures)
    assert isinstance(store, Recognition)
    samples = read_all(pickle.loads(pickle.dumps(store)))
    assert [s.entity for s in samples] == ["707-320", "707-320", "727-200"]
    assert {s.category for s in samples} == {"aircraft"}
    published = [row["options"] for rows in AIRCRAFT.values() for row in rows]
    assert [sorted(s.options) for s in samples] == [sorted(options) for options in published]
    assert [s.box_px for s in samples] == [(0, 0, 40, 30), (0, 0, 41, 30), (0, 0, 42, 30)]
    assert samples[1].image == (pictures / "data/images/2.jpg").read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "category", "split"),
    [
        ("dog-120", DOGS, "dog", "unseen"),
        ("imagenet-6k-animal", NEWTS, "animal", "seen"),
        ("geode", NEWTS, "geode", "seen"),
    ],
)
def test_what_is_on_the_pictures_follows_from_the_set(tmp_path, pictures, name, content, category, split):
    path = foci(tmp_path, name, content)
    assert {(s.category, s.split) for s in read_all(open_store(path, pictures))} == {(category, split)}
    assert {s.category for s in read_all(open_store(path, pictures, "thing"))} == {"thing"}


def test_underscores_are_spaces_and_a_picture_may_come_twice(tmp_path, pictures):
    first, second = read_all(open_store(foci(tmp_path, "dog-120", DOGS), pictures))
    assert first.entity == second.entity == "Japanese spaniel"
    assert sorted(second.options) == ["Japanese spaniel", "Pekinese", "papillon", "toy terrier"]
    assert first.image == second.image
    assert first.key != second.key


def test_it_becomes_a_question_with_letters_and_its_line_is_judged(tmp_path, pictures):
    sample = read_all(open_store(foci(tmp_path, "imagenet-6k-animal", NEWTS), pictures))[0]
    question = Question(sample)
    lines = question.turns("direct")[0].split("\n")
    assert lines[0] == "Which animal is shown in the picture?"
    assert sorted(line[3:] for line in lines[1:5]) == ["axolotl", "common newt", "slender salamander", "tadpole"]
    right = next(line[0] for line in lines[1:5] if line.endswith("common newt"))
    size = ImageSize(sample.width, sample.height, 56, 56)
    answers = [question.line(answer, "direct", RelativeCodec(), size) for answer in (right, "tadpole")]
    assert [line["correct"] for line in answers] == [True, False]
    assert answers[0]["options"][answers[0]["right"]] == "common newt"


def test_the_right_place_is_drawn_by_the_seed(tmp_path, pictures):
    rows = {"a": [{**AIRCRAFT["707-320"][0], "groundtruth": "707-320"}] * 400}
    path = foci(tmp_path, "fgvc_aircraft", rows)

    def places(seed):
        return [s.options.index("707-320") for s in read_all(open_store(path, pictures, seed=seed))]

    counts = Counter(places(0))
    assert all(70 < counts[place] < 130 for place in range(4))  # 100 +- 3.5 standard deviations of 8.7
    assert places(0) == places(0) != places(1)


COLOURS = {
    "red": "bird",
    "green": "bird",
    "blue": "bird",
    "grey": "bird",
    "pink": "bird",
    "black": "car",
    "white": "car",
}


def table(folder, name, more=None):
    rows = [{"image": "data/images/1.jpg", "label": label, "category": of} for label, of in COLOURS.items()]
    rows = [{**row, **(more or {})} for row in rows]
    path = folder / name
    if name.endswith(".csv"):
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize("name", ["test.csv", "test.json", "test.jsonl"])
def test_without_options_three_others_of_the_category_are_drawn(tmp_path, pictures, name):
    samples = read_all(open_store(table(tmp_path, name), pictures))
    assert [(s.entity, s.category) for s in samples] == list(COLOURS.items())
    for sample in samples:
        options = sample.options
        assert len(set(options)) == len(options) == (4 if sample.category == "bird" else 2)
        assert sample.entity in options
        assert {COLOURS[option] for option in options} == {sample.category}
    assert len({tuple(sorted(s.options)) for s in samples if s.category == "bird"}) > 1


def test_options_of_a_table_and_its_other_words(tmp_path, pictures):
    path = tmp_path / "mine.csv"
    path.write_text("path,entity,options,category\ncat.jpg,Manx,Sphynx|Manx| Bombay,cat\n\n", "utf-8-sig")
    (sample,) = read_all(open_store(path, pictures))
    assert (sample.entity, sample.category) == ("Manx", "cat")
    assert sorted(sample.options) == ["Bombay", "Manx", "Sphynx"]
    assert sample.image.startswith(b"\x89PNG")


BAD = [
    ({"options": ["757-200", "DC-8"]}, "707-320[1]: options: ['757-200', 'DC-8'] do not contain the label '707-320'"),
    ({"options": ["707-320"]}, "707-320[1]: options: ['707-320'] must be 2 to 26 names"),
    ({"options": ["707-320", "DC-8", "DC-8"]}, "707-320[1]: options:"),
    ({"options": [3, 17, 8, 5]}, "707-320[1]: options: [3, 17, 8, 5] must be a list of names"),
    ({"groundtruth": 3}, "707-320[1]: groundtruth: 3 must be text"),
    ({"image": "data/images/9.jpg"}, "707-320[1]: image: data/images/9.jpg is not in"),
    ({"image": ""}, "707-320[1]: image: '' must be text"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_a_bad_row_is_named_and_passed_over(tmp_path, pictures, caplog, change, message):
    rows = AIRCRAFT["707-320"]
    path = foci(tmp_path, "fgvc_aircraft", {**AIRCRAFT, "707-320": [rows[0], {**rows[1], **change}]})
    tally = Tally()
    assert [s.provenance["row"] for s in read_all(open_store(path, pictures), tally)] == [0, 2]
    assert tally.num_bad == 1
    assert message in caplog.text


def test_a_category_of_one_label_has_nothing_to_choose_from(tmp_path, pictures, caplog):
    (tmp_path / "one.jsonl").write_text('{"image": "data/images/1.jpg", "label": "wren", "category": "bird"}\n')
    assert read_all(open_store(tmp_path / "one.jsonl", pictures)) == []
    assert "line 1: options: are missing, and its category has no other label than 'wren'" in caplog.text


def test_files_of_other_forms_are_refused(tmp_path, pictures):
    (tmp_path / "a.csv").write_text("file,name\na.jpg,wren\n")
    with pytest.raises(DataError, match="form: is not a list"):
        open_store(tmp_path / "a.csv", pictures)
    (tmp_path / "b.json").write_text('{"a": [{"image": "1.jpg", "groundtruth": "a"}], "b": 3}')
    with pytest.raises(DataError, match="b: rows: must be a list"):
        open_store(tmp_path / "b.json", pictures)
