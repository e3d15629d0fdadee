"""Shows what a set holds: a table, and one HTML page with pictures, boxes and rationales."""

from __future__ import annotations

import argparse
import base64
import html
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvg.types import Sample

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:1280px;
padding:0 1rem;color:#1d2330;background:#f6f7f9}
h1{font-size:1.4rem;margin-bottom:.2rem}
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(290px,1fr));gap:1rem}
figure{margin:0;background:#fff;border-radius:10px;overflow:hidden;box-shadow:0 1px 4px #0002}
svg{display:block;width:100%;height:auto;background:#eee}figcaption{padding:.6rem .8rem}
b{font-size:1.02rem}small{color:#667}p{margin:.35rem 0 0;font-size:.86rem}
table{border-collapse:collapse;margin:.8rem 0 1.4rem}td,th{padding:.15rem .9rem .15rem 0;text-align:left}
.n{font-size:12px;font-weight:700}i{font-style:normal;font-weight:600;color:#a35b00}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options."""
    parser.add_argument("folder", help="folder of shards, or a published file")
    parser.add_argument("--num", type=int, default=24, help="pictures on the page (default 24)")
    parser.add_argument("--seed", type=int, default=0, help="which pictures (default 0)")
    parser.add_argument("--out", help="the page (default: contact_sheet.html in the folder, or beside the file)")


def run(args: argparse.Namespace) -> int:
    """Prints the table and writes the page.

    Raises:
        DataError: the set cannot be opened.
    """
    from rich.console import Console
    from rich.table import Table

    from kvg.formats.stores import open_store
    from kvg.shards.reader import Tally

    source, tally = Path(args.folder), Tally()
    counts: dict[tuple[str, str, str], Counter[str]] = {}
    picked: list[Sample] = []
    rng, num_seen = random.Random(args.seed), 0
    for part in open_store(source).parts():
        for _, sample in part.read(tally):
            row = counts.setdefault((sample.category, sample.split, sample.knowledge or "-"), Counter())
            row.update(samples=1, objects=len(sample.objects), rationales=bool(sample.rationale))
            num_seen += 1
            # Reservoir sampling: every sample is on the page with the same chance, in one pass.
            if len(picked) < args.num:
                picked.append(sample)
            elif (slot := rng.randrange(num_seen)) < args.num:
                picked[slot] = sample
    table = Table(title=str(source))
    for title in ("category", "split", "knowledge"):
        table.add_column(title)
    for title in ("samples", "objects each", "rationales"):
        table.add_column(title, justify="right")
    rows = [_row(key, row) for key, row in sorted(counts.items())]
    for cells in rows:
        table.add_row(*cells)
    Console().print(table)
    out = Path(args.out) if args.out else (source if source.is_dir() else source.parent) / "contact_sheet.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(contact_sheet(str(source), rows, picked), "utf-8")
    bad = f"; {tally.num_bad} bad samples, {tally.num_cut} cut files" if tally.problems else ""
    print(f"{num_seen} samples{bad}; pictures in {out}")
    return 0


def contact_sheet(title: str, rows: Sequence[Sequence[str]], samples: Sequence[Sample]) -> str:
    """One HTML page that needs no other file.

    Args:
        title: headline.
        rows: category, split, knowledge, samples, objects each, rationales.
        samples: to be shown, the object asked for framed in orange.
    """
    names = ("category", "split", "knowledge", "samples", "objects each", "rationales")
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    figures = "\n".join(_figure(sample) for sample in samples)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1><table><tr>{head}</tr>{body}</table>"
        f"<main>{figures}</main></html>\n"
    )


def _figure(sample: Sample) -> str:
    from kvg.shards.schema import image_extension

    kind = {"jpg": "jpeg", "png": "png"}[image_extension(sample.image)]
    data = base64.b64encode(sample.image).decode()
    stroke = max(sample.width, sample.height) / 220
    boxes = ""
    for i, scene_object in enumerate(sample.objects):
        x1, y1, x2, y2 = scene_object.box_px
        colour = "#f08a00" if i == sample.target else "#5b7fa8"
        boxes += (
            f'<rect x="{x1}" y="{y1}" width="{x2 - x1}" height="{y2 - y1}" fill="none" stroke="{colour}" '
            f'stroke-width="{stroke:.2f}"><title>{html.escape(f"{i + 1} {scene_object.entity}")}</title></rect>'
            f'<text x="{x1 + 2 * stroke}" y="{y1 + 9 * stroke}" font-size="{9 * stroke:.1f}" fill="{colour}" '
            f'font-weight="700">{i + 1}</text>'
        )
    text = re.sub(r"&lt;box:(\d+)&gt;", lambda m: f"<i>[{int(m[1]) + 1}]</i>", html.escape(sample.rationale))
    facts = " · ".join(filter(None, (sample.category, sample.split, sample.knowledge, sample.key)))
    return (
        f'<figure><svg viewBox="0 0 {sample.width} {sample.height}"><image width="{sample.width}" '
        f'height="{sample.height}" href="data:image/{kind};base64,{data}"/>{boxes}</svg><figcaption>'
        f"<b>{html.escape(sample.entity)}</b><br><small>{html.escape(facts)}</small><p>{text}</p></figcaption></figure>"
    )


def _row(key: tuple[str, str, str], counts: Counter[str]) -> list[str]:
    num = counts["samples"]
    return [*key, str(num), f"{counts['objects'] / num:.2f}", str(counts["rationales"])]
