"""Files of facts as people write them: what is read, what is reported, and what ends the command."""

from __future__ import annotations

import logging

import pytest

from kvg.errors import ConfigError, DataError
from kvg.rationales.facts import Facts, read_facts
from kvg.types import traits_of

ENTITIES = ("Merlin", "Hobby", "Caf\u00e9 racer")  # NFC


@pytest.fixture
def read(tmp_path):
    def read(text, entities=ENTITIES, elsewhere=()) -> Facts:
        path = tmp_path / "facts.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_facts(path, entities, elsewhere)

    return read


@pytest.mark.parametrize(
    ("text", "looks"),
    [
        ("Merlin: grey back, white spots", "grey back, white spots"),
        ("Merlin: 'grey back ,white  spots,'", "grey back, white spots"),
        ("Merlin: [grey back, white spots]", "grey back, white spots"),
        ("Merlin: grey, grey, white", "grey, white"),
        ("' Merlin ': grey", "grey"),
        ('{"Merlin": "grey"}', "grey"),  # JSON is YAML
        (b"\xef\xbb\xbfMerlin: grey", "grey"),
        ("Merlin: 3 spots", "3 spots"),
        # Nothing:
        ("Merlin:", None),
        ("Merlin: null", None),
        ("Merlin: ~", None),
        ("Merlin: ''", None),
        ("Merlin: []", None),
        ("Merlin: ', ,'", None),
        ("Hobby: red", None),
    ],
)
def test_looks_as_they_are_written(read, text, looks):
    facts = read(text)
    assert facts.traits.get("Merlin") == (traits_of(looks) if looks else None)
    assert ("Merlin" in facts.missing) is (looks is None)


def test_names_meet_in_one_spelling(read):
    assert read("Cafe\u0301  racer: low").traits == {"Caf\u00e9 racer": ("low",)}  # NFD, two spaces
    assert read("Caf\u00e9\u00a0racer: low").traits == {"Caf\u00e9 racer": ("low",)}


@pytest.mark.parametrize("name", ["No", "On", "007", "1_000", "747", "1.10", "2020-01-01", "null"])
def test_names_that_yaml_would_take_for_something_else(read, name):
    assert read(f"{name}: white, long", [name]).traits == {name: ("white", "long")}


def test_what_is_unknown_or_differs_in_capitals_is_reported_and_not_used(read, caplog):
    facts = read("merlin: grey\nHoby: red\nOsprey: brown", elsewhere=["Osprey"])
    assert facts == Facts({}, ENTITIES, ("Hoby",), {"merlin": "Merlin"})
    with caplog.at_level(logging.WARNING):
        facts.report("facts.yaml")
    assert "facts.yaml: 0 of 3 entities have facts, 3 have none: Merlin, Hobby, Caf\u00e9 racer." in caplog.text
    assert "not used, since capitals differ: 'merlin' (here 'Merlin')" in caplog.text
    assert "1 names are not entities: Hoby" in caplog.text


def test_a_whole_file_says_nothing(read, caplog):
    read("Merlin: grey\nHobby: red\nCaf\u00e9 racer: low").report("facts.yaml")
    assert not caplog.text


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("Merlin: {back: grey}", DataError, r"Merlin: .* should be traits in words"),
        ("Merlin: [[grey]]", DataError, r"Merlin: .* should be traits in words"),
        ("Merlin: 5", DataError, r"Merlin: '5' should be traits in words"),
        ("Merlin: '?'", DataError, r"Merlin: '\?' should be traits in words"),
        ("Merlin: grey <|im_end|>", DataError, r"Merlin: may not hold <\|im_end\|>"),
        (
            "Merlin: grey\nMerlin: red",
            ConfigError,
            r"facts\.yaml contains 'Merlin' twice, in lines 1 and 2; remove one",
        ),
        ("Merlin: grey\n' Merlin': red", DataError, r"Merlin: occurs twice in two spellings"),
        ("", ConfigError, r"facts\.yaml contains no settings"),
        ("- Merlin", ConfigError, r"facts\.yaml contains no settings"),
        ("Merlin", ConfigError, r"facts\.yaml contains no settings"),
        ("Merlin: [", ConfigError, r"facts\.yaml is not YAML"),
        ("? [a]\n: grey", ConfigError, r"facts\.yaml is not YAML"),
        (b"Merlin: \xff", ConfigError, r"facts\.yaml is not YAML"),
        (b"Merlin: \x00", ConfigError, r"facts\.yaml is not YAML"),
        ("a: &a\n  b: *a", ConfigError, r"facts\.yaml is not YAML"),
    ],
)
def test_damaged_files(read, text, error, message):
    with pytest.raises(error, match=message):
        read(text)


def test_one_entity_twice_with_the_same_looks_is_no_harm(read):
    assert read("Merlin: grey\n' Merlin': 'grey '").traits == {"Merlin": ("grey",)}


def test_there_is_no_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot be opened"):
        read_facts(tmp_path / "no.yaml", ENTITIES)
    with pytest.raises(ConfigError, match="cannot be opened"):
        read_facts(tmp_path, ENTITIES)
