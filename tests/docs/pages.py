"""The pages of the documentation: their code blocks, links and headings.

A comment before a block says how it is tested: ``<!-- executed -->`` runs it, in the order of the page and in one
folder; ``<!-- executed: WHAT -->`` also needs WHAT, a fixture of ``test_executed.py``. Other blocks are parsed.
"""

from __future__ import annotations

import json
import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
_FENCE = re.compile(
    r"(?:^ *<!-- (?P<how>[^\n]*?) -->\n)?^(?P<indent> *)```(?P<kind>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.M | re.S
)
_FILE = re.compile(r"# ([\w/]+\.(?:py|ya?ml))\b")
_LINK = re.compile(r"(?<!`)\[[^\]\n]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A code block. ``file`` is the name that its first line, a comment, gives it; '' for none."""

    page: Path
    line: int
    kind: str
    text: str
    how: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file(self) -> str:
        match = _FILE.match(self.text) if self.kind in ("python", "yaml") else None
        return match[1] if match else ""

    @property
    def executed(self) -> bool:
        return self.how.startswith("executed")

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command line of a shell block, without comments."""
        joined = self.text.replace("\\\n", " ")
        lines = (shlex.split(line, comments=True) for line in joined.splitlines())
        return [words for words in lines if words]


def pages() -> list[Path]:
    names = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
    return [*(ROOT / name for name in names), *sorted(DOCS.rglob("*.md"))]


def blocks() -> list[Block]:
    return [block for page in pages() for block in _blocks(page)]


def programs(page: str) -> list[Block]:
    """The blocks of one page that can be run."""
    return [block for block in _blocks(ROOT / page) if block.kind in ("sh", "python")]


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    for match in _FENCE.finditer(text):
        code = textwrap.dedent(match["text"])
        kind = match["kind"] or ("sh" if code.startswith(("make ", "kvg", "python")) else "")
        yield Block(page, text.count("\n", 0, match.start("kind")) + 1, kind, code, match["how"] or "")


def links(page: Path) -> list[str]:
    return _LINK.findall(_FENCE.sub("", page.read_text("utf-8")))


def anchors(page: Path) -> set[str]:
    """The ids of a page's headings, as GitHub and mkdocs make them."""
    heads = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text("utf-8")), re.M)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", head.lower()).strip()) for head in heads}


def notebooks() -> list[Path]:
    return sorted(DOCS.rglob("*.ipynb"))


def code_cells(notebook: Path) -> list[str]:
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
