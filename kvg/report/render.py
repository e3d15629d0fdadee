"""Renders self-contained pages from jinja2 templates with autoescape.

Content is passed as plain values, which are escaped. Only ``Markup`` is inserted as HTML: SVG charts, and the output of
other templates.
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
    """Renders a part of a page.

    Args:
        template: file name in ``kvg/report/templates``.
        content: its variables.
    """
    return Markup(_TEMPLATES.get_template(template).render(**content).strip())


def render_page(
    template: str,
    title: str,
    styles: Sequence[str],
    scripts: Sequence[str] = (),
    style: str = "",
    head: str = "",
    **content: Any,
) -> str:
    """Renders a self-contained page.

    The page loads no other file. Its content security policy allows only its own script, by checksum, so that a browser
    blocks scripts in model answers.

    Args:
        template: extends ``skeleton.jinja``.
        title: of the page.
        styles: file names of style sheets in ``kvg/report``.
        scripts: file names of its scripts, which become one.
        style: further rules.
        head: name of a further ``meta`` element's content, see ``skeleton.jinja``.
        content: variables of the template.
    """
    code = Markup("").join(asset(script) for script in scripts)
    checksum = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode("ascii")
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    policy += f"; script-src 'sha256-{checksum}'" if scripts else ""
    rules = Markup("").join([*(asset(name) for name in styles), Markup(style)])
    page = render(template, title=title, policy=Markup(policy), style=rules, script=code, head=head, **content)
    return f"{page}\n"


def asset(name: str) -> Markup:
    """The text of a style sheet or script of this package."""
    return Markup((resources.files("kvg.report") / name).read_text("utf-8"))
