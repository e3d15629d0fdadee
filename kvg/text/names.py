"""Normalises names, so that names which look the same are equal."""

from __future__ import annotations

import unicodedata


def clean_name(text: str) -> str:
    r"""Returns a name in Unicode's composed form (NFC), with single spaces.

    ``é`` as one character and ``e`` with a combining accent look the same and should be equal. Files from macOS have
    the second form.

    >>> clean_name("  Caf\u0065\u0301\u00a0 racer ") == "Caf\u00e9 racer"
    True
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def caseless(name: str) -> str:
    """Returns a key for finding names that differ only in capitals; such names are reported, not merged.

    >>> caseless("Hobby") == caseless("hobby")
    True
    """
    return unicodedata.normalize("NFC", clean_name(name).casefold())
