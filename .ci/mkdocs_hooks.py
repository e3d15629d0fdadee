"""Hook of mkdocs: the navigation is the folders of docs, so that a new page needs no entry in a list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SECTIONS = {
    "Tutorials": "tutorials",
    "How to": "how-to",
    "Integrations": "integrations",
    "Reference": "reference",
    "Explanation": "explanation",
}
TOP = {"Home": "index.md", "Experiments": "experiments/README.md", "Symptoms": "symptoms.md"}
FIRST = {"tutorials": ["index.md", "lab.md"], "explanation": ["architecture.md"]}  # the others follow by name


def on_config(config: Any) -> Any:
    """Sets ``nav``: the top pages, and a section for each folder."""
    docs = Path(config["docs_dir"])
    nav: list[dict[str, Any]] = [{title: name} for title, name in TOP.items() if (docs / name).is_file()]
    for title, folder in SECTIONS.items():
        first = FIRST.get(folder, [])
        pages = sorted((docs / folder).glob("*.md"), key=lambda path: (order(path.name, first), path.name))
        if pages:
            nav.insert(len(nav) - 1, {title: [page.relative_to(docs).as_posix() for page in pages]})
    config["nav"] = nav
    return config


def order(name: str, first: list[str]) -> int:
    """Place of a page that comes first; one after all of them for the others."""
    return first.index(name) if name in first else len(first)
