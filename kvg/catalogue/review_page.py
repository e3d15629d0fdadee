"""Pages on which a person ticks the boxes that are wrong; each is one HTML file that needs no other."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from PIL import Image

from kvg.catalogue.entry import Entry
from kvg.errors import DataError
from kvg.work.files import atomic_write, disk_errors
from kvg.work.progress import progress_bar

PAGE: Final = 200  # boxes
SIDE: Final = 200  # pixels of a small picture
QUALITY: Final = 78
_PARTS: Final = ("review.css", "review.js")
_OURS: Final = re.compile(r"review(-\d{3,})?\.html")


@dataclass(frozen=True)
class Shown:
    """A box that is looked at.

    Attributes:
        entry: the picture, with a box.
        iou: of two opinions; None where there is one.
        doubtful: whether the filter keeps it.
        bad: whether it has been ticked before.
    """

    entry: Entry
    iou: float | None
    doubtful: bool
    bad: bool


def write_pages(folder: Path, shown: Sequence[Shown], read: Callable[[Entry], Image.Image]) -> tuple[list[Path], int]:
    """Writes ``review.html``, or ``review-001.html`` and so on where there are many; removes those of another time.

    A page that is there and shows the same is left as it is, so that an interruption costs one page at most.

    Args:
        folder: of the project.
        shown: in the order of the pages.
        read: opens the picture of an entry, or raises ``DataError``.

    Returns:
        The pages, and how many pictures could not be opened for those that were written now.

    Raises:
        DataError: the folder cannot be written to.
    """
    parts = [shown[at : at + PAGE] for at in range(0, len(shown), PAGE)] or [shown]
    marks = [""] if len(parts) == 1 else [f"-{number:03d}" for number in range(1, len(parts) + 1)]
    paths = [folder / f"review{mark}.html" for mark in marks]
    lost = 0
    with disk_errors(folder):
        for path in folder.glob("review*.html"):
            if _OURS.fullmatch(path.name) and path not in paths:
                path.unlink()
        with progress_bar() as progress:
            task = progress.add_task("pictures of the review", total=len(shown))
            for number, (path, part) in enumerate(zip(paths, parts, strict=True)):
                made_of = _made_of(number, part, marks)
                if not _is_made_of(path, made_of):
                    tags = []
                    for item in part:
                        tag, opened = _figure(item, read)
                        lost += not opened
                        tags.append(tag)
                        progress.advance(task)
                    atomic_write(path, _page(number, part, marks, tags, made_of))
                progress.update(task, completed=min(len(shown), (number + 1) * PAGE))
    return paths, lost


def _page(number: int, part: Sequence[Shown], marks: Sequence[str], tags: Sequence[str], made_of: str) -> str:
    style, script = ((resources.files("kvg.catalogue") / name).read_text("utf-8") for name in _PARTS)
    title = "Boxes, the most doubtful first" + (f": page {number + 1} of {len(marks)}" if len(marks) > 1 else "")
    links = [
        f'<a href="review{marks[at]}.html">{text}</a>'
        for at, text in ((number - 1, "← page before"), (number + 1, "next page →"))
        if 0 <= at < len(marks)
    ]
    file = f"bad_boxes{marks[number]}.jsonl"
    note = (
        "Click on a picture whose box is wrong (or go there with Tab or the arrow keys, and press Space or Enter). "
        f"“Save” makes the file <code>{file}</code>: put it into the folder of this page, in place of an older one. "
        "What comes after leaves these pictures out. Below a name: where the box is from, how well two opinions agree "
        "(IoU), and the share of the picture that the box covers."
    )
    data = {"file": file, "boxes": [_values(item) for item in part]}
    body = "".join(tags) or "<p class=soft>There are no boxes yet.</p>"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="made-of" content="{made_of}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{style}</style></head><body><header><h1>{title}</h1>"
        '<span id="count" role="status"></span><label><input type="checkbox" id="only"> only doubtful</label>'
        '<button type="button" id="save">Save</button><span id="state" class=soft role="status"></span>'
        f"<nav>{''.join(links)}</nav></header><p class=note>{note}</p><main>{body}</main>"
        # JSON in ASCII without "<" can end no script, whatever a name holds.
        f'<script type="application/json" id="page">{json.dumps(data).replace("<", chr(92) + "u003c")}</script>'
        f"<script>{script}</script></body></html>\n"
    )


def _figure(item: Shown, read: Callable[[Entry], Image.Image]) -> tuple[str, bool]:
    """A picture with its box and what is known of it, and whether the picture could be opened."""
    entry = item.entry
    if entry.box_px is None:
        raise ValueError(f"{entry.ref} has no box")
    try:
        picture, opened = _drawing(entry, entry.box_px, read(entry)), True
    except DataError as error:
        picture, opened = f"<div class=lost>{_text(error.remedy)}</div>", False
    x1, y1, x2, y2 = entry.box_px
    share = (x2 - x1) * (y2 - y1) / (entry.width * entry.height)
    agreed = f" · IoU {item.iou:.2f}" if item.iou is not None else ""
    kind = " class=doubtful" if item.doubtful else ""
    return (
        f'<figure{kind} tabindex="0" role="checkbox" aria-checked="{str(item.bad).lower()}" '
        f'aria-label="{_text(entry.entity)}: bad box" title="{_text(f"{entry.source}/{entry.ref}")}">{picture}'
        f"<figcaption><b>{_text(entry.entity)}</b><span>{_text(entry.category)} · {_text(entry.box_from)}{agreed} · "
        f"{share:.0%}</span></figcaption></figure>\n"
    ), opened


def _drawing(entry: Entry, box: tuple[float, float, float, float], image: Image.Image) -> str:
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    x1, y1, x2, y2 = box
    shape = f'x="{x1:g}" y="{y1:g}" width="{x2 - x1:g}" height="{y2 - y1:g}"'
    return (
        f'<svg viewBox="0 0 {entry.width} {entry.height}" aria-hidden="true"><image width="{entry.width}" '
        f'height="{entry.height}" preserveAspectRatio="none" href="data:image/jpeg;base64,{data}"/>'
        f'<rect class="halo" {shape}/><rect class="box" {shape}/></svg>'
    )


def _text(raw: str) -> str:
    """Safe in HTML, also between quotes; what is no text (a file name may hold any bytes) is shown as escapes."""
    return html.escape(raw.encode("utf-8", "backslashreplace").decode("utf-8"))


def _values(item: Shown) -> dict[str, object]:
    """What the script knows of a box; its ``id`` names this box of this picture in every project."""
    entry = item.entry
    told = json.dumps([entry.source, entry.ref, entry.sha256, entry.box_px])
    name = hashlib.sha256(told.encode("ascii")).hexdigest()[:16]
    return {"id": name, "source": entry.source, "ref": entry.ref, "box_px": entry.box_px, "bad": item.bad}


def _made_of(number: int, part: Sequence[Shown], marks: Sequence[str]) -> str:
    code = [(resources.files("kvg.catalogue") / name).read_text("utf-8") for name in (*_PARTS, "review_page.py")]
    told = json.dumps([number, len(marks), [repr(item) for item in part], code])
    return hashlib.sha256(told.encode("ascii")).hexdigest()


def _is_made_of(path: Path, made_of: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return made_of.encode("ascii") in file.read(400)
