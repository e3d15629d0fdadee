"""The site builds without a warning and loads nothing from other hosts."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.docs.pages import ROOT

pytest.importorskip("mkdocs", reason="make docs installs the extra `docs`")


def test_the_site_builds_without_warnings_and_is_self_contained(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        assert "unpkg.com" not in page.read_text("utf-8")  # of the plugin `offline`
        loaded = re.findall(
            r"<(?:script|img|link)[^>]*(?:src|href)=[\"']?(https?://[^\"'\s>]+)", page.read_text("utf-8")
        )
        assert [url for url in loaded if "canonical" not in url] == []
