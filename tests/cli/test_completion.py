"""Completion, by the shell itself."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from kvg.cli.commands import COMMANDS
from kvg.cli.kvg_data import main

pytest.importorskip("shtab")


@pytest.fixture
def complete(tmp_path, capsys):
    """What bash offers for words of which the last is being typed."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")

    def offered(program, *words):
        assert main(["completion", "bash", "--program", program]) == 0
        script = tmp_path / "completion"
        script.write_text(capsys.readouterr().out)
        given = " ".join(f"'{word}'" for word in (program, *words))
        function = f"_shtab_{program.replace('-', '_')}"
        lines = f"source {script}; COMP_WORDS=({given}); COMP_CWORD={len(words)}; {function}; echo ${{COMPREPLY[@]}}"
        return subprocess.run([bash, "-c", lines], capture_output=True, text=True, check=True).stdout.split()

    return offered


def test_commands_and_options_are_offered(complete):
    assert set(complete("kvg-data", "")) >= set(COMMANDS)
    assert complete("kvg-data", "sca") == ["scan"]
    assert complete("kvg-data", "scan", "--wo") == ["--workers"]
    assert complete("kvg", "ground", "--checkp") == ["--checkpoint"]
    assert complete("kvg", "app", "--po") == ["--port"]
    assert set(complete("kvg", "")) >= {"fit", "validate", "test", "predict"}


def test_configs_are_offered(complete, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").touch()
    assert complete("kvg", "fit", "-c", "mi") == ["mine.yaml"]
