"""Whether HTML is whole: every tag closed, in order."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "br", "img", "input", "path", "circle", "polyline", "polygon"}


class Balance(HTMLParser):
    """Fails at the first tag that closes what is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.counts: dict[str, int] = {}

    def handle_starttag(self, tag, attrs):
        """Opens."""
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        """Opens and closes."""
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag):
        """Closes."""
        if tag not in VOID:
            assert self.open.pop() == tag


def parsed(text: str) -> Balance:
    """Reads it all.

    Raises:
        AssertionError: it is not whole.
    """
    balance = Balance()
    balance.feed(text)
    assert balance.open == []
    return balance
