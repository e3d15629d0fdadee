"""What training has shown: small sets written by the project's own writers, and every verdict by hand."""

import io
import json

import pytest
from PIL import Image, ImageFile

from kvg.errors import DataError
from kvg.evaluation.figures.exposure import NameSearch, exposure_of, texts_of, words_of
from kvg.evaluation.records.prediction import Prediction
from kvg.formats.sharegpt import write_sharegpt
from kvg.shards.writer import ShardWriter
from kvg.types import Sample, SceneObject


def sample(key, *names, target=0, rationale=""):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), (9, 99, 199)).save(buffer, "JPEG")
    objects = tuple(SceneObject(name, (10.0 * i, 0.0, 10.0 * i + 9, 9.0)) for i, name in enumerate(names))
    return Sample(key, buffer.getvalue(), 40, 20, "bird", "seen", objects, target, rationale)


@pytest.fixture
def shards(tmp_path):
    def write(*samples):
        with ShardWriter(tmp_path / "set", 100) as writer:
            for one in samples:
                writer.write(one)
        return tmp_path / "set"

    return write


def test_pictures_texts_both_or_novel(shards, tmp_path):
    trained = shards(
        sample("a", "Merlin", "Hobby", rationale="Plan: the merlin is small. Unlike a Kestrel, <box:0> is blue."),
        sample("b", "Hobby", "Saker"),
    )
    cards = tmp_path / "cards.jsonl"
    lines = [{"text": "bird: the Lanner is brown."}, {"prompt": "Describe the Saker.", "completion": "It is brown."}]
    cards.write_text("".join(json.dumps(line) + "\n" for line in lines))
    facts = tmp_path / "facts.yaml"
    facts.write_text("Gyrfalcon: white, spots, broad, slim\n")
    names = ("Merlin", "Hobby", "Kestrel", "Saker", "Lanner", "Gyrfalcon", "Peregrine", "Hob")
    found = exposure_of(names, [trained], [cards, facts])
    assert {name: found.of(name) for name in names} == {
        "Merlin": "pictures and texts",  # asked for, and in the rationale
        "Hobby": "pictures only",  # asked for once and beside another once; no text of it
        "Kestrel": "texts only",  # a rationale compares with it
        "Saker": "pictures and texts",  # never asked for, but on a picture; the text is a card's question
        "Lanner": "texts only",
        "Gyrfalcon": "texts only",  # the name of a fact
        "Peregrine": "novel",
        "Hob": "novel",  # no word of its own in any text
    }
    assert (found.num_samples, found.num_bad, found.num_unnamed) == (2, 0, 0)


def test_the_lab_s_base_model_has_read_the_known_cards():
    names = ("Boeing 747", "Kestrel of nowhere")
    assert [exposure_of(names, [], lab=True).of(name) for name in names] == ["texts only", "novel"]
    assert exposure_of(names, []).of("Boeing 747") == "novel"


def test_by_case_and_without_an_entity(make_line):
    cases = [
        Prediction.from_line(make_line(key=k, entity=e), "t")
        for k, e in (("a", "Merlin"), ("b", "Boeing 747"), ("c", None))
    ]
    assert exposure_of(["Merlin", "Boeing 747"], [], lab=True).by_case(cases) == {
        "test/a": "novel",
        "test/b": "texts only",
    }


def test_no_picture_is_decoded(shards, monkeypatch):
    trained = shards(sample("a", "Merlin", "Hobby"))

    def refuse(self):
        raise AssertionError("a picture was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
    assert exposure_of(["Merlin"], [trained]).of("Merlin") == "pictures only"


def test_published_files_name_only_what_is_asked_for(tmp_path):
    told = sample("a", "Merlin", "Hobby", rationale="Look: 1 <box:0> small, 2 <box:1> not a merlin, a Kestrel perhaps.")
    write_sharegpt([told], tmp_path / "cot-sft-bird.json")
    found = exposure_of(["Merlin", "Hobby", "Kestrel"], [tmp_path / "cot-sft-bird.json"])
    assert [found.of(name) for name in ("Merlin", "Hobby", "Kestrel")] == ["pictures and texts", "novel", "texts only"]
    assert found.num_unnamed == 1


def test_the_published_list_of_entities(tmp_path):
    path = tmp_path / "all_entities_train.json"
    path.write_text(json.dumps([{"entity_name": "Merlin", "n": 3}, {"entity_name": "Boeing 737-800"}]))
    found = exposure_of(["Merlin"], [path])
    assert (found.of("Merlin"), found.of("boeing 737 800"), found.of("Boeing 737")) == (
        "pictures only",
        "pictures only",
        "novel",
    )


def test_bad_samples_are_counted_since_training_skips_them_too(shards):
    trained = shards(sample("a", "Merlin"), sample("b", "Hobby"))
    tar = next(trained.glob("*.tar"))
    tar.write_bytes(tar.read_bytes().replace(b'"entity": "Hobby"', b'"entity": 12345  '))
    found = exposure_of(["Merlin", "Hobby"], [trained])
    assert (found.of("Merlin"), found.of("Hobby"), found.num_samples, found.num_bad) == ("pictures only", "novel", 1, 1)
    assert "sample b" in found.problems[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the St Basil’s cathedral is red", True),
        ("ST. BASIL'S CATHEDRAL", True),
        ("St. Basil's old Cathedral", False),
        ("St. Basil's Cathedrals", False),
        ("Ｓｔ． Basil's Cathedral", True),  # full width
    ],
)
def test_names_are_found_word_by_word(text, expected):
    name = words_of("St. Basil's Cathedral")
    assert (NameSearch([name]).names_in(text) == {name}) is expected


def test_a_name_inside_a_longer_known_name_is_not_counted():
    search = NameSearch(map(words_of, ("Boeing 737", "Boeing 737-800", "800 Mile Falcon")))
    assert search.names_in("the Boeing 737-800 Mile Falcon") == {words_of("Boeing 737-800")}
    assert search.names_in("the Boeing 737") == {words_of("Boeing 737")}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cards.jsonl", '{"text": "a"}\n{"text": \n', r"cards\.jsonl line 2: json: cannot be read"),
        ("facts.yaml", "a: [", r"facts\.yaml: yaml: cannot be read"),
        ("facts.json", "{", r"facts\.json: json: cannot be read"),
    ],
)
def test_texts_that_cannot_be_read(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        exposure_of([], [], [tmp_path / name])
    with pytest.raises(DataError, match="cannot be opened"):
        exposure_of([], [], [tmp_path / "nowhere.txt"])
    (tmp_path / "latin.txt").write_bytes("Göttingen".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8"):
        list(texts_of(tmp_path / "latin.txt"))


def test_a_training_set_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        exposure_of([], [tmp_path / "nowhere"])


@pytest.mark.parametrize("name", ["cards.jsonl", "cards.json", "cards.yaml", "cards.txt"])
def test_odd_line_ends_and_a_byte_order_mark_hide_no_name(tmp_path, name):
    text = "First\u2028the Merlin\u0085and\u2029the Hobby"
    content = {"jsonl": '{"text": %s}\r\n\r\n{"text": "the Osprey"}', "json": '[{"text": %s}, "the Osprey"]'}
    form = content.get(name.partition(".")[2], "text: %s\nmore: the Osprey")
    (tmp_path / name).write_bytes((form % json.dumps(text, ensure_ascii=False)).encode("utf-8-sig"))
    told = exposure_of(["Merlin", "Hobby", "Osprey", "Wren"], [], [tmp_path / name]).mentioned
    assert told == {("merlin",), ("hobby",), ("osprey",)}


def test_facts_that_hold_themselves_are_read_once(tmp_path):
    (tmp_path / "facts.yaml").write_text("a: &a [the Merlin, *a]\nb: *a\n2019: the Hobby\n")
    assert exposure_of(["Merlin", "Hobby", "Wren"], [], [tmp_path / "facts.yaml"]).mentioned == {
        ("merlin",),
        ("hobby",),
    }


def test_a_published_list_with_a_mistyped_name(tmp_path):
    (tmp_path / "all_entities_train.json").write_text('[{"entity_name": "Merlin"}, {"entity_name": 5}]')
    with pytest.raises(DataError, match="record 1: entity_name: 5 must be text"):
        exposure_of(["Merlin"], [tmp_path / "all_entities_train.json"])
