"""Levels of entities, from files of both forms as they are published and as `kvg-data probe` writes them."""

import json

import pytest

from kvg.benchmark import KNOWN_LEVELS, LEVELS
from kvg.errors import ConfigError, DataError
from kvg.evaluation.figures.levels import knowledge_of, read_levels, without_level
from kvg.evaluation.records.prediction import Prediction
from kvg.rewards.knowledge import KnowledgeReward
from kvg.types import Sample, SceneObject


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), "utf-8")
        return path

    return write


def test_published_files_and_our_own_are_joined(write):
    published = write("results-visual_knowledge.json", {"Merlin": {"knowledge_category": "mostly correct", "n": 50}})
    other = write(
        "results-visual_knowledge-testood.json", {"Göttingen": {"knowledge_category": "completely incorrect"}}
    )
    own = write(
        "knowledge.json", {"Hobby": 0.7, "Kestrel": 0.45, "Saker": 0.3, "Lanner": 0.25, "Gyrfalcon": 0, "Kite": 1}
    )
    assert read_levels([published, other, own]) == {
        "Merlin": "mostly correct",
        "Göttingen": "completely incorrect",
        "Hobby": "completely correct",
        "Kestrel": "mostly correct",
        "Saker": "partially correct",
        "Lanner": "mostly incorrect",
        "Gyrfalcon": "completely incorrect",
        "Kite": "completely correct",
    }


def test_known_are_the_three_highest_levels_as_in_the_paper():
    assert KNOWN_LEVELS == ("completely correct", "mostly correct", "partially correct")
    assert LEVELS[3:] == ("mostly incorrect", "completely incorrect")


def test_files_that_agree_are_joined_and_files_that_do_not_are_refused(write):
    first = write("a.json", {"Merlin": {"knowledge_category": "mostly correct"}})
    assert read_levels([first, write("b.json", {"Merlin": 0.5})]) == {"Merlin": "mostly correct"}
    with pytest.raises(
        DataError, match=r"c\.json: Merlin: is 'completely incorrect' here and 'mostly correct' in .*a\.j"
    ):
        read_levels([first, write("c.json", {"Merlin": 0.05})])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "json: cannot be read"),
        ("[]", "json: is not a JSON object"),
        ("{}", "json: is not a JSON object"),
        ({"Merlin": 1.1}, "Merlin: 1.1 is neither"),
        ({"Merlin": True}, "Merlin: True is neither"),
        ({"Merlin": "mostly correct"}, "Merlin: 'mostly correct' is neither"),
        ({"Merlin": {"knowledge_category": "somewhat"}}, "Merlin: knowledge_category 'somewhat' is not one of"),
        ({"Merlin": {}}, "Merlin: knowledge_category None is not one of"),
    ],
)
def test_what_is_no_level_is_told_by_file_and_entity(write, content, message):
    with pytest.raises(DataError, match=message):
        read_levels([write("knowledge.json", content)])


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="cannot be opened"):
        read_levels([tmp_path / "nowhere.json"])


def test_an_entity_in_no_file_is_in_no_group_and_what_a_line_says_of_itself_comes_first(make_line):
    levels = {"Merlin": "partially correct", "Hobby": "mostly incorrect"}
    plain = {
        name: Prediction.from_line(make_line(entity=name, knowledge=None), "t")
        for name in ("Merlin", "Hobby", "merlin", "Kite")
    }
    assert {name: knowledge_of(case, levels) for name, case in plain.items()} == {
        "Merlin": "known",
        "Hobby": "unknown",
        "merlin": "",
        "Kite": "",
    }
    assert without_level(list(plain.values()), levels) == ["Kite", "merlin"]
    assert knowledge_of(Prediction.from_line(make_line(entity="Hobby", knowledge="known"), "t"), levels) == "known"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"Merlin": 0.1, "Merlin": 0.9}', "json: cannot be read .*'Merlin' stands there twice"),
        ('{"Caf\u00e9": 0.1, "Cafe\u0301": 0.9}', "Caf\u00e9: occurs twice with different values"),
        ('{"Merlin": 1e999}', "Merlin: inf is neither"),
        ('{"Merlin": NaN}', "Merlin: nan is neither"),
        (f'{{"Merlin": 1{"0" * 400}}}', "Merlin: 1000"),
        (
            '{"Merlin": {"knowledge_category": ["mostly correct"]}}',
            "Merlin: knowledge_category .* is not one of",
        ),
        ('{"\\ud800": 0.5}', "is not the name of an entity"),
        ('{" ": 0.5}', "' ': is not the name of an entity"),
        ("[" * 100_000, "json: cannot be read"),
    ],
)
def test_odd_files_of_levels_are_told_and_of_accuracies_too(tmp_path, text, message):
    path = tmp_path / "knowledge.json"
    path.write_text(text, "utf-8")
    with pytest.raises(DataError, match=message):
        read_levels([path])
    with pytest.raises(ConfigError, match=r"reward\.accuracies: "):
        KnowledgeReward(str(path))


def test_names_are_joined_in_one_spelling(tmp_path, make_line):
    path = tmp_path / "knowledge.json"
    path.write_bytes('{"Cafe\u0301  racer": 0.9}'.encode("utf-8-sig"))
    levels = read_levels([path])
    case = Prediction.from_line(make_line(entity="Caf\u00e9 racer", knowledge=""), "line 1")
    assert (levels, knowledge_of(case, levels)) == ({"Caf\u00e9 racer": "completely correct"}, "known")
    sample = Sample("k", b"", 9, 9, "bike", "seen", (SceneObject("Caf\u00e9 racer", (0, 0, 9, 9)),), 0)
    assert KnowledgeReward(str(path)).level(sample).name == "completely correct"
