"""Renders pages: one skeleton, jinja2 templates with autoescape, and no other file that a page would load.

Content comes as plain values, and everything in them is escaped. Only ``Markup`` is taken as HTML: charts, which are
SVG, and what another template has rendered.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_TEMPLATES: Final = Environment(
    loader=PackageLoader("kvg.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


def render(template: str, **content: Any) -> Markup:
    """A part of a page.

    Args:
        template: file name in ``kvg/report/templates``.
        content: its variables.
    """
    return Markup(_TEMPLATES.get_template(template).render(**content).strip())


def render_page(
    template: str, title: str, styles: Sequence[str], script: str = "", style: str = "", head: str = "", **content: Any
) -> str:
    """A whole page that needs no other file.

    The page loads nothing. Its security policy names its script by checksum, so that a browser would refuse any other,
    whatever a model has answered.

    Args:
        template: extends ``skeleton.jinja``.
        title: of the page.
        styles: file names of style sheets in ``kvg/report``.
        script: file name of its script; '' for none.
        style: further rules.
        head: name of a further ``meta`` element's content, see ``skeleton.jinja``.
        content: variables of the template.
    """
    code = asset(script) if script else Markup("")
    checksum = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode("ascii")
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    policy += f"; script-src 'sha256-{checksum}'" if script else ""
    rules = Markup("").join([*(asset(name) for name in styles), Markup(style)])
    page = render(template, title=title, policy=Markup(policy), style=rules, script=code, head=head, **content)
    return f"{page}\n"


def asset(name: str) -> Markup:
    """A style sheet or script of this package."""
    return Markup((resources.files("kvg.report") / name).read_text("utf-8"))
