"""Runs the blocks of a page: `sh` through the commands of this project, `python` in one namespace."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from kvg.cli import kvg, kvg_data

PROGRAMS = {"kvg": kvg.main, "kvg-data": kvg_data.main}
ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and content of each block that can be run."""
    return _BLOCK.findall((ROOT / page).read_text("utf-8"))


@pytest.fixture
def run_block(capsys):
    """Runs one block; returns what it printed."""

    def run(language: str, text: str, names: dict) -> str:
        capsys.readouterr()
        if language == "python":
            exec(compile(text, "block", "exec"), names)
        else:
            for line in text.replace("\\\n", " ").splitlines():
                program, *args = shlex.split(line, comments=True)
                assert PROGRAMS[program](args) == 0, (line, capsys.readouterr().err)
        return capsys.readouterr().out

    return run
