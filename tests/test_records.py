"""Lists as people bring them."""

from __future__ import annotations

import json

import pytest

from kvg.errors import DataError
from kvg.records import load_list, number_of, optional_text, own_record, parse_json, text_of

BREAKS = "one\u2028two\u2029three\u0085four\u000bfive\u000csix\u001cseven"


def test_only_a_line_feed_ends_a_line_of_json(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"entity": BREAKS}, ensure_ascii=False), json.dumps({"entity": "Wren"})]
    for ending in ("\n", "\r\n"):
        path.write_bytes(ending.join([*lines, "", ""]).encode())
        assert [row["entity"] for _, row in load_list(path)] == [BREAKS.replace("\x0b", "\x0b"), "Wren"]
    assert [where for where, _ in load_list(path)] == [f"{path} line 1", f"{path} line 2"]


def test_a_quoted_cell_keeps_its_line_break(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes('\ufeffpath,entity\r\na.jpg,"Great\r\nTit"\r\nb.jpg,"Say ""hi"", \u2028 you"\r\n'.encode())
    assert [row for _, row in load_list(path)] == [
        {"path": "a.jpg", "entity": "Great\r\nTit"},
        {"path": "b.jpg", "entity": 'Say "hi", \u2028 you'},
    ]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv"])
@pytest.mark.parametrize(
    "data",
    [b"\xff\xfe\x00", b"[" * 100_000, b"{", b'"\x00', b"1" * 10_000, b'a,b\n"open', b"\x80abc"],
    ids=["utf-16", "deep", "open", "nul", "long number", "open quote", "not utf-8"],
)
def test_damaged_files_are_named(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    if name == "a.csv" and data in (b"[" * 100_000, b"{", b"1" * 10_000):
        assert load_list(path) == []  # a header alone
        return
    with pytest.raises(DataError) as error:
        load_list(path)
    assert error.value.where.startswith(str(path))


def test_a_byte_order_mark_is_passed_over(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf[{"a": 1}]')
    assert load_list(path) == [{"a": 1}]


@pytest.mark.parametrize("value", [None, "", "  ", 5, 5.0, True, [], ["Wren"], {"name": "Wren"}, "\ud800"])
def test_a_needed_text_is_text(value):
    with pytest.raises(DataError, match="line 3: entity: "):
        text_of("line 3", {"entity": value}, "entity")


def test_an_optional_text_may_be_missing_and_not_mistyped():
    assert optional_text("line 3", {}, "entity") == optional_text("line 3", {"entity": None}, "entity") == ""
    assert optional_text("line 3", {"entity": " Wren "}, "entity") == "Wren"
    with pytest.raises(DataError, match="line 3: entity: 5 must be text"):
        optional_text("line 3", {"entity": 5}, "entity")


def test_numbers_may_stand_in_quotes():
    assert [number_of(v) for v in ("5", " 5.5 ", 7, 1e3)] == [5.0, 5.5, 7.0, 1000.0]
    assert [number_of(v) for v in ("", "x", None, True, [1], "nan", "inf", 10**400)] == [None] * 8


@pytest.mark.parametrize("content", ["", "{", "[1]", "5", "null", "[" * 100_000, '{"a": 1}x', "\ud83d"])
def test_a_damaged_record_of_own_work_is_none(tmp_path, content):
    (tmp_path / "record.json").write_text(content, "utf-8", errors="surrogatepass")
    assert own_record(tmp_path / "record.json") == {}
    assert own_record(tmp_path) == own_record(tmp_path / "nowhere.json") == {}


def test_names_that_stand_twice_are_told_where_it_matters():
    text = '{"a": {"Merlin": 0.1, "Merlin": 0.9}}'
    assert parse_json(text, "x") == {"a": {"Merlin": 0.9}}
    with pytest.raises(DataError, match=r"x: json: cannot be read .'Merlin' stands there twice"):
        parse_json(text, "x", unique_names=True)
