"""A set tells which code made it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kvg.shards.revision import revision, revision_of


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    return subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A repository with one commit: a manual, and a package at its top."""
    (tmp_path / "repo/package").mkdir(parents=True)
    (tmp_path / "repo/package/code.py").write_text("x = 1\n")
    (tmp_path / "repo/README.md").write_text("a manual\n")
    git(tmp_path / "repo", "init", "-q")
    git(tmp_path / "repo", "add", ".")
    git(tmp_path / "repo", "commit", "-q", "-m", "first")
    return tmp_path / "repo"


def test_the_commit_and_whether_the_package_was_changed_since(checkout):
    commit = git(checkout, "rev-parse", "HEAD").strip()
    assert len(commit) == 40
    assert revision_of(checkout / "package") == commit
    (checkout / "README.md").write_text("another manual\n")
    (checkout / "data.tar").write_bytes(b"a set written into the checkout")
    assert revision_of(checkout / "package") == commit
    (checkout / "package/more.py").write_text("y = 1\n")
    assert revision_of(checkout / "package") == f"{commit}-dirty"
    (checkout / "package/more.py").unlink()
    (checkout / "package/code.py").write_text("x = 2\n")
    assert revision_of(checkout / "package") == f"{commit}-dirty"


def test_what_is_no_checkout_of_its_own_has_none(checkout, tmp_path, monkeypatch):
    (checkout / "site/package").mkdir(parents=True)
    assert revision_of(checkout / "site/package") == ""  # installed below another project
    (tmp_path / "plain/package").mkdir(parents=True)
    assert revision_of(tmp_path / "plain/package") == ""
    assert revision_of(tmp_path / "nowhere") == ""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert revision_of(checkout / "package") == ""  # no git


def test_variables_of_a_hook_lead_nowhere_else(checkout, monkeypatch, tmp_path):
    expected = revision_of(checkout / "package")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert revision_of(checkout / "package") == expected


def test_this_code_has_one():
    assert revision()
    assert revision() == revision()
