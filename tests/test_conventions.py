"""The check of conventions that `make lint` runs, on small sources."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

CONVENTIONS = runpy.run_path(str(Path(__file__).parents[1] / ".ci/conventions.py"))


@pytest.fixture
def findings(tmp_path):
    def check(source, name="kvg/part.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        return [text.removeprefix(f"{path}:") for text in CONVENTIONS["check"](path)]

    return check


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("found = 1\n", "found"),
        ("for told in ():\n    pass\n", "told"),
        ("def asked():\n    pass\n", "asked"),
        ("def count(shots):\n    return shots\n", "shots"),
        ("class Cast:\n    pass\n", "Cast"),
        ("class A:\n    def __init__(self):\n        self.num_tries = 1\n", "num_tries"),
        ("_UNREAD = 1\n", "_UNREAD"),
        ("with open('a') as (lesson, rest):\n    pass\n", "lesson"),
        ("rows = [said for said in ()]\n", "said"),
        ("if (found := 1):\n    pass\n", "found"),
        ("try:\n    pass\nexcept OSError as told:\n    pass\n", "told"),
        ("import json as judge\n", "judge"),
    ],
)
def test_a_forbidden_word_is_found_wherever_a_name_is_defined(findings, source, name):
    (finding,) = findings(source)
    assert f"'{name}' is no name here; write " in finding


@pytest.mark.parametrize(
    "source",
    [
        "matches = 1\n",
        "foundation = broadcast = 1\n",  # words that hold a forbidden one
        "print(other.found)\n",  # of a library
        "text = 'found'  # found\n",
    ],
)
def test_other_names_pass(findings, source):
    assert findings(source) == []


def test_an_import_inside_a_function_needs_a_reason(findings):
    bare = "def f():\n    import json\n\n    return json\n"
    assert findings(bare) == ["2: import inside a function; move it up, or say why in a comment"]
    assert findings(bare.replace("import json\n", "import json  # imports torch\n")) == []
    assert findings(bare.replace("    import json\n", "    # torch comes last\n    import json\n")) == []
    assert findings(bare, "kvg/cli/part.py") == []  # commands import what they run


def test_an_import_inside_a_nested_function_is_named_once(findings):
    source = "def f():\n    def g():\n        import json\n\n        return json\n\n    return g\n"
    assert len(findings(source)) == 1


def test_global_is_found(findings):
    assert findings("def f():\n    global x\n    x = 1\n") == ["2: global; pass the value, or keep it in an object"]


@pytest.mark.parametrize(("name", "most"), [("kvg/part.py", 320), ("kvg/cli/part.py", 80)])
def test_a_file_has_so_many_lines_at_most(findings, name, most):
    assert findings("x = 1\n" * most, name) == []
    assert findings("x = 1\n" * (most + 1), name) == [f" {most + 1} lines; cut it, {most} are the most"]


def test_the_exit_code_says_whether_all_is_right(tmp_path, capsys):
    (tmp_path / "part.py").write_text("boxes = 1\n")
    assert CONVENTIONS["main"]([str(tmp_path)]) == 0
    (tmp_path / "part.py").write_text("told = 1\n")
    assert CONVENTIONS["main"]([str(tmp_path)]) == 1
    assert "part.py:1: 'told' is no name here" in capsys.readouterr().out
