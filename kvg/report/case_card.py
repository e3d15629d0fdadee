"""One case as a card: the picture with both boxes, the question, the rationale, the verdict, and what was recalled."""

from __future__ import annotations

import base64
import html
import re

from kvg.report.cases import Case
from kvg.report.recall import Recall, recall
from kvg.shards.schema import image_extension
from kvg.text.completion import parse_completion
from kvg.types import Box, Sample

_BOX = re.compile(r"&lt;\|box_start\|&gt;(.*?)&lt;\|box_end\|&gt;")
_PART = re.compile(r"\b(Plan|Look|Compare|Conclusion):")
_LONGEST = 700  # characters of an answer that are shown; a model that has learnt nothing can ramble


def case_card(case: Case, sample: Sample) -> str:
    """The card.

    Args:
        case: the answer.
        sample: its record, for picture and card.
    """
    verdict = f"IoU {case.iou:.2f}" if case.box_px else "no box"
    mark, kind = ("✓", "right") if case.right else ("✗", "wrong")
    facts = " · ".join(filter(None, (case.category, case.split, case.knowledge)))
    return (
        f"<figure class=case>{_picture(case, sample)}<figcaption>"
        f"<span class='verdict {kind}'>{mark} {verdict}</span>"
        f"<span class=soft>Find and give the bounding box of</span> <b>{html.escape(case.entity)}</b>"
        f"<br><span class=soft>{html.escape(facts)}</span>{_answer(case)}{_recalled(recall(case, sample))}"
        "</figcaption></figure>"
    )


def _picture(case: Case, sample: Sample) -> str:
    kind = {"jpg": "jpeg", "png": "png"}[image_extension(sample.image)]
    data = base64.b64encode(sample.image).decode()
    stroke = max(sample.width, sample.height) / 90
    boxes = _rect(case.target_px, "truth", stroke, "truth")
    if case.box_px:
        boxes += _rect(case.box_px, "answer", stroke, "answer", dashed=True)
    return (
        f'<svg viewBox="0 0 {sample.width} {sample.height}" role="img" aria-label="{html.escape(case.entity)}">'
        f'<image width="{sample.width}" height="{sample.height}" href="data:image/{kind};base64,{data}"/>{boxes}</svg>'
    )


def _rect(box: Box, kind: str, stroke: float, title: str, dashed: bool = False) -> str:
    x1, y1, x2, y2 = min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3])
    shape = f'x="{x1:g}" y="{y1:g}" width="{x2 - x1:g}" height="{y2 - y1:g}"'
    dashes = f' stroke-dasharray="{3 * stroke:.2f} {1.6 * stroke:.2f}"' if dashed else ""
    halo = "" if dashed else f'<rect class="halo" {shape} stroke-width="{1.9 * stroke:.2f}"/>'
    return f'{halo}<rect class="{kind}" {shape} stroke-width="{stroke:.2f}"{dashes}><title>{title}</title></rect>'


def _answer(case: Case) -> str:
    parsed = parse_completion(case.text)
    if not parsed.rationale:
        return f"<p>{_marked(case.text)}</p>"
    return f"<p>{_marked(parsed.rationale)}</p><p><em>Answer:</em> {_marked(parsed.answer or 'none')}</p>"


def _marked(text: str) -> str:
    """Escaped, with boxes and the names of the four parts set apart."""
    text = text if len(text) <= _LONGEST else text[:_LONGEST] + " …"
    escaped = _BOX.sub(r"<code>\1</code>", html.escape(text))
    return _PART.sub(r"<em>\1:</em>", escaped)


def _recalled(recalled: Recall | None) -> str:
    if recalled is None:
        return ""
    if recalled.right:
        return "<p class=recall><span class=right>✓ card recalled</span></p>"
    said, true = recalled.said.split(", "), recalled.true.split(", ")
    marked = [
        html.escape(word) if i < len(said) and said[i] == word else f"<s>{html.escape(word)}</s>"
        for i, word in enumerate(true)
    ]
    return f"<p class=recall><span class=wrong>✗ card not recalled.</span> It is {', '.join(marked)}.</p>"
