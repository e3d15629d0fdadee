"""Runs the blocks of a page: `sh` through the commands of this project, `python` in one namespace."""

from __future__ import annotations

import pytest

from kvg.cli import kvg, kvg_data
from tests.docs.pages import Block

PROGRAMS = {"kvg": kvg.main, "kvg-data": kvg_data.main}


@pytest.fixture
def run_block(capsys):
    """Runs one block in this process; returns what it printed."""

    def run(block: Block, names: dict) -> str:
        capsys.readouterr()
        if block.kind == "python":
            exec(compile(block.text, block.name, "exec"), names)
        else:
            for program, *args in block.commands:
                assert PROGRAMS[program](args) == 0, (block.name, args, capsys.readouterr().err)
        return capsys.readouterr().out

    return run
