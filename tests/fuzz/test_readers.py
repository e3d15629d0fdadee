"""Nothing that is read from outside ends a command with a traceback, however it is damaged."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvg.errors import KVGError

from . import catalogues, exchange, formats, models
from .cases import content, write
from .damage import damaged_bytes, damaged_values

CASES = {**formats.CASES, **exchange.CASES, **catalogues.CASES, **models.CASES}

NUM = 400  # damaged sets a reader


def read(case, folder):
    """Reads a folder; errors made for a user are what is wanted, and so are exit codes (1: `verify` finds faults)."""
    try:
        code = case.run(folder)
    except KVGError:
        return 2
    assert code in (None, 0, 1, 2)
    return code or 0


def check(case, folder, draws):
    """Reads a case with one of its files damaged."""
    name = draws.draw(st.sampled_from(case.targets), label="file")
    whole = case.files[name]
    as_bytes = isinstance(whole, bytes) or draws.draw(st.integers(0, 3), label="bytes?") == 0
    made = draws.draw(damaged_bytes(content(name, whole)) if as_bytes else damaged_values(whole), label="content")
    shutil.rmtree(folder, ignore_errors=True)
    for other, value in case.files.items():
        write(folder, other, made if other == name else value)
    read(case, folder)


@pytest.mark.parametrize("name", CASES)
def test_whole_sets_are_read(name, tmp_path):
    for path, value in CASES[name].files.items():
        write(tmp_path, path, value)
    assert read(CASES[name], tmp_path) == 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", CASES)
def test_damaged_sets_end_without_a_traceback(name, tmp_path):
    @settings(max_examples=NUM, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(draws=st.data())
    def run(draws):
        check(CASES[name], tmp_path / "set", draws)

    run()
