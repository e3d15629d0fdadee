"""Links of the documentation lead to files and headings that exist; the README keeps its size and its first words."""

from __future__ import annotations

import re
import runpy

import pytest
import yaml

from tests.docs.pages import DOCS, ROOT, anchors, links, pages


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    problems = []
    for link in links(page):
        if re.match(r"https?://|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            problems.append(f"{link}: no such file")
        elif anchor and anchor not in anchors(target):
            problems.append(f"{link}: no such heading")
        elif page.is_relative_to(DOCS) and not target.is_relative_to(DOCS):
            problems.append(f"{link}: lies outside of docs, where the built site cannot follow")
    assert not problems


def test_every_page_can_be_reached_from_the_readme_or_the_navigation():
    seen, waiting = set(), [ROOT / "README.md", DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        targets = ((page.parent / link.partition("#")[0]).resolve() for link in links(page) if "://" not in link)
        waiting += [target for target in targets if target.suffix == ".md" and target.is_file()]
    sections = {"tutorials", "how-to", "integrations", "reference", "explanation"}  # .ci/mkdocs_hooks.py
    lost = {page for page in DOCS.rglob("*.md") if page.parent.name not in sections} - seen
    assert not lost


def test_log_keys_of_pages_exist_in_the_code():
    code = "".join(path.read_text("utf-8") for folder in ("kvg", "callbacks") for path in (ROOT / folder).rglob("*.py"))
    texts = {page: page.read_text("utf-8") for page in pages()}
    keys = {key for text in texts.values() for key in re.findall(r"`((?:train|time|val)/[a-z][\w/]*)`", text)}
    assert len(keys) > 20
    assert [key for key in keys if not re.search(rf"\b{key.rpartition('/')[2]}\b", code)] == []


def test_files_for_the_host_are_yaml():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert f'version = "{citation["version"]}"' in project
    for path in (ROOT / ".github/ISSUE_TEMPLATE").iterdir():
        form = yaml.safe_load(path.read_text("utf-8"))
        assert {"name", "description", "body"} <= set(form)


def test_pictures_are_small():
    assert all(path.stat().st_size < 150_000 for path in (DOCS / "images").iterdir())


def test_readme_is_short_and_says_at_once_what_has_not_run_and_how_to_test():
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.split()) <= 900
    assert "not run on a GPU" in text[:3000]
    assert "make test    # lint, types, layers, tests" in text.splitlines()
    assert "make test" in (ROOT / ".ci/run").read_text("utf-8")


def test_the_reference_is_that_of_the_code(capsys):
    check = runpy.run_path(str(ROOT / ".ci/reference.py"))["main"]
    assert check(["--check"]) == 0, capsys.readouterr().out
