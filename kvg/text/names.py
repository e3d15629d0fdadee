"""Names as they are compared: one spelling for what looks the same."""

from __future__ import annotations

import unicodedata


def clean_name(text: str) -> str:
    r"""A name in Unicode's composed form (NFC), with white space folded to single spaces.

    ``é`` as one character and as ``e`` with an accent look the same and are the same name; files from macOS hold the
    second form.

    >>> clean_name("  Caf\u0065\u0301\u00a0 racer ") == "Caf\u00e9 racer"
    True
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def caseless(name: str) -> str:
    """A name for finding others that differ in capitals alone; such names are reported, not joined.

    >>> caseless("Hobby") == caseless("hobby")
    True
    """
    return unicodedata.normalize("NFC", clean_name(name).casefold())
