"""Damage as files from outside have it: mistyped and missing fields, bytes that were lost or changed."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

Path = tuple[Any, ...]

NASTY: list[Any] = [
    None, True, False, 0, -1, 1, 5, 10**400, -(10**30), 0.5, 1e308, float("nan"), float("inf"), "", " ", "x", "5",
    "null", "\ud800", "a\0b", "one\u2028two", "<|image_pad|>", "<think>", "../../etc/passwd", "/", "a" * 5000, [], {},
    [None], [1, 2], [0.1, 0.2, 0.3, 0.4], ["5", "5", "50", "40"], [1, 2, 3, "x"], [{}], {"a": 1}, {"": None},
    {"x": [{}]}, [[]],
]  # fmt: skip

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.sampled_from([v for v in NASTY])
)
values = st.one_of(
    st.sampled_from(NASTY),
    st.recursive(
        scalars,
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)),
        max_leaves=8,
    ),
)


def paths_of(value: Any, path: Path = ()) -> Iterator[Path]:
    """Every place of a tree of lists and mappings, its root included."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths_of(inner, (*path, key))


@st.composite
def damaged_values(draw: st.DrawFn, value: Any) -> Any:
    """A tree with one to three places replaced, removed, doubled, renamed or wrapped."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(paths_of(value))))
        if not path:
            if draw(st.integers(0, 9)) == 0:
                return copy.deepcopy(draw(values))
            continue
        owner = value
        for key in path[:-1]:
            owner = owner[key]
        key, action = path[-1], draw(st.sampled_from(["replace", "replace", "remove", "double", "rename", "wrap"]))
        if action == "replace":
            owner[key] = copy.deepcopy(draw(values))
        elif action == "remove":
            del owner[key]
        elif action == "wrap":
            owner[key] = draw(st.sampled_from([[owner[key]], {"value": owner[key]}, str(owner[key])]))
        elif isinstance(owner, list):
            owner.insert(key, copy.deepcopy(owner[key]))
        else:
            owner[draw(st.sampled_from(["", "x", str(key).upper(), f" {key}"]))] = owner[key]
            if action == "rename":
                del owner[key]
    return value


@st.composite
def damaged_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """A file that was cut, filled with zeros, changed, lengthened or given a byte order mark."""
    if not data:
        return draw(st.binary(max_size=50))
    made = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(0, len(made) - 1)))
        length = draw(st.integers(1, 64))
        action = draw(st.sampled_from(["cut", "zeros", "change", "insert", "remove", "tail", "mark"]))
        if action == "cut":
            del made[place:]
        elif action == "zeros":
            made[place:] = bytes(len(made) - place)
        elif action == "change":
            made[place : place + length] = draw(st.binary(min_size=1, max_size=length))
        elif action == "insert":
            made[place:place] = draw(
                st.one_of(st.binary(max_size=20), st.sampled_from([b"\n", b'"', b"{", b"\0", b","]))
            )
        elif action == "remove":
            del made[place : place + length]
        elif action == "tail":
            made += draw(st.binary(max_size=200))
        else:
            made[:0] = draw(st.sampled_from([b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff\0"]))
    return bytes(made)


def as_json(value: Any) -> bytes:
    """JSON, with what only Python's writer allows: NaN, infinity, halves of surrogate pairs as escapes.

    Bytes, such as a picture that damage has put into a list, become a text.
    """
    return json.dumps(value, default=lambda data: data.decode("latin-1")).encode()


def as_lines(rows: Any) -> bytes:
    """JSON lines of a list; another value is a line of its own."""
    return b"\n".join(map(as_json, rows)) if isinstance(rows, list) else as_json(rows)
