"""``kvg app``: what is wrong on its command line. tests/app serves it."""

from __future__ import annotations

import importlib.util

import pytest

from kvg.cli.exports import named_checkpoints
from kvg.cli.kvg import main
from kvg.errors import ConfigError


@pytest.mark.skipif(importlib.util.find_spec("gradio") is not None, reason="Gradio is installed")
def test_the_missing_package_is_named(capsys):
    assert main(["app", "--checkpoint", "lab"]) == 2
    assert capsys.readouterr().err == "kvg: app: needs Gradio 6: pip install 'kvg[app]'\n"


def test_a_missing_checkpoint_is_named_with_those_that_are_here(tmp_path, monkeypatch, capsys):
    (tmp_path / "runs/a/export").mkdir(parents=True)
    (tmp_path / "runs/a/export/kvg.json").touch()
    monkeypatch.chdir(tmp_path)
    assert main(["app"]) == 2
    assert "--checkpoint: is missing; give RUN/export of a training (here: runs/a/export)" in capsys.readouterr().err


def test_checkpoints_have_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b").mkdir()
    texts = ["lab", "mine=runs/x/export", "runs/y/export/", "a=b"]
    named = {"lab": "lab", "mine": "runs/x/export", "runs/y": "runs/y/export/", "a=b": "a=b"}
    assert named_checkpoints(texts, 4) == named
    with pytest.raises(ConfigError, match="there are 4; give at most 3"):
        named_checkpoints(texts, 3)
    with pytest.raises(ConfigError, match="two are called 'lab'"):
        named_checkpoints(["lab", "lab"], 4)
