"""Self-contained HTML pages on which a person marks wrong boxes."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from markupsafe import Markup
from PIL import Image

from kvg.catalogue.entry import Entry
from kvg.errors import DataError
from kvg.report.render import asset, render_page
from kvg.work.files import atomic_write, disk_errors
from kvg.work.progress import progress_bar

PAGE: Final = 200  # boxes per page
SIDE: Final = 200  # longer side of a thumbnail, in pixels
QUALITY: Final = 78
_PARTS: Final = ("review.css", "review.js", "review_page.py", "templates/review.jinja", "templates/skeleton.jinja")
_OURS: Final = re.compile(r"review(-\d{3,})?\.html")


@dataclass(frozen=True)
class ReviewItem:
    """A box to review.

    Attributes:
        entry: the picture, with a box.
        iou: IoU of two predictions; None with one prediction.
        doubtful: whether the filter "only doubtful" shows it.
        bad: whether it is already marked as bad.
    """

    entry: Entry
    iou: float | None
    doubtful: bool
    bad: bool


def write_pages(
    folder: Path, items: Sequence[ReviewItem], read: Callable[[Entry], Image.Image]
) -> tuple[list[Path], int]:
    """Writes ``review.html``, or ``review-001.html`` and so on for many boxes; removes outdated pages.

    Existing pages with the same content are not written again, so that an interruption costs at most one page.

    Args:
        folder: of the project.
        items: in the order of the pages.
        read: opens the picture of an entry, or raises ``DataError``.

    Returns:
        The pages, and the number of pictures that could not be opened for the newly written pages.

    Raises:
        DataError: the folder cannot be written to.
    """
    parts = [items[at : at + PAGE] for at in range(0, len(items), PAGE)] or [items]
    marks = [""] if len(parts) == 1 else [f"-{number:03d}" for number in range(1, len(parts) + 1)]
    paths = [folder / f"review{mark}.html" for mark in marks]
    lost = 0
    with disk_errors(folder):
        for path in folder.glob("review*.html"):
            if _OURS.fullmatch(path.name) and path not in paths:
                path.unlink()
        with progress_bar() as progress:
            task = progress.add_task("pictures of the review", total=len(items))
            for number, (path, part) in enumerate(zip(paths, parts, strict=True)):
                made_of = _made_of(number, part, marks)
                if not _is_made_of(path, made_of):
                    views = []
                    for item in part:
                        views.append(_view(item, read))
                        lost += not views[-1].uri
                        progress.advance(task)
                    atomic_write(path, _page(number, part, marks, views, made_of))
                progress.update(task, completed=min(len(items), (number + 1) * PAGE))
    return paths, lost


def _page(number: int, part: Sequence[ReviewItem], marks: Sequence[str], views: Sequence[_View], made_of: str) -> str:
    file = f"bad_boxes{marks[number]}.jsonl"
    # "<" is escaped in the JSON, so that no name can end the script element.
    data = json.dumps({"file": file, "boxes": [_values(item) for item in part]}).replace("<", "\\u003c")
    return render_page(
        "review.jinja",
        "Boxes, the most doubtful first" + (f": page {number + 1} of {len(marks)}" if len(marks) > 1 else ""),
        ("review.css",),
        ("review.js",),
        head=made_of,
        before=f"review{marks[number - 1]}.html" if number else "",
        after=f"review{marks[number + 1]}.html" if number + 1 < len(marks) else "",
        file=file,
        items=views,
        data=Markup(data),
    )


@dataclass(frozen=True)
class _View:
    """A box as the page shows it; ``uri`` is '' if the picture cannot be opened, and ``fault`` holds the reason."""

    entity: str
    place: str
    facts: str
    doubtful: bool
    bad: bool
    width: int
    height: int
    x: str
    y: str
    box_width: str
    box_height: str
    uri: str
    fault: str


def _view(item: ReviewItem, read: Callable[[Entry], Image.Image]) -> _View:
    """The view of an item: the picture, its box and its metadata."""
    entry = item.entry
    if entry.box_px is None:
        raise ValueError(f"{entry.ref} has no box")
    try:
        uri, fault = _uri(read(entry)), ""
    except DataError as error:
        uri, fault = "", error.remedy
    x1, y1, x2, y2 = entry.box_px
    share = (x2 - x1) * (y2 - y1) / (entry.width * entry.height)
    agreed = f" · IoU {item.iou:.2f}" if item.iou is not None else ""
    return _View(
        entity=_text(entry.entity),
        place=_text(f"{entry.source}/{entry.ref}"),
        facts=f"{_text(entry.category)} · {_text(entry.box_from)}{agreed} · {share:.0%}",
        doubtful=item.doubtful,
        bad=item.bad,
        width=entry.width,
        height=entry.height,
        x=f"{x1:g}",
        y=f"{y1:g}",
        box_width=f"{x2 - x1:g}",
        box_height=f"{y2 - y1:g}",
        uri=uri,
        fault=_text(fault),
    )


def _uri(image: Image.Image) -> str:
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _text(raw: str) -> str:
    """Text that can be encoded as UTF-8; other bytes of file names are shown as escapes."""
    return raw.encode("utf-8", "backslashreplace").decode("utf-8")


def _values(item: ReviewItem) -> dict[str, object]:
    """The data of a box for the script; its ``id`` identifies this box of this picture in every project."""
    entry = item.entry
    text = json.dumps([entry.source, entry.ref, entry.sha256, entry.box_px])
    name = hashlib.sha256(text.encode("ascii")).hexdigest()[:16]
    return {"id": name, "source": entry.source, "ref": entry.ref, "box_px": entry.box_px, "bad": item.bad}


def _made_of(number: int, part: Sequence[ReviewItem], marks: Sequence[str]) -> str:
    code = [asset(name) for name in _PARTS]
    text = json.dumps([number, len(marks), [repr(item) for item in part], code])
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _is_made_of(path: Path, made_of: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return made_of.encode("ascii") in file.read(400)
