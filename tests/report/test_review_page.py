"""Pages on which a person ticks wrong boxes."""

from __future__ import annotations

from PIL import Image

from kvg.catalogue.entry import Entry
from kvg.errors import DataError
from kvg.report.review_page import PAGE, ReviewItem, write_pages


def test_many_boxes_are_on_several_pages_that_are_not_made_twice(tmp_path):
    image, opened = Image.new("RGB", (40, 30)), []
    entries = [
        Entry("s", f"{n}.jpg", f"Kind {n}", "bird", 40, 30, "", "", (1, 2, 30, 20), "m") for n in range(PAGE + 2)
    ]

    def read(entry: Entry) -> Image.Image:
        opened.append(entry.ref)
        if entry.ref == "1.jpg":
            raise DataError(entry.ref, "image", "has <gone>")
        return image.copy()

    shown = [ReviewItem(entry, 0.9, n < 3, False) for n, entry in enumerate(entries)]
    (tmp_path / "review-notes.html").write_text("mine")
    pages, lost = write_pages(tmp_path, shown, read)
    assert [page.name for page in pages] == ["review-001.html", "review-002.html"]
    assert (lost, len(opened)) == (1, PAGE + 2)
    first, last = (page.read_text() for page in pages)
    assert "has &lt;gone&gt;" in first
    assert 'href="review-002.html"' in first
    assert 'href="review-001.html"' in last
    assert '"file": "bad_boxes-002.jsonl"' in last
    assert (first.count("<figure"), first.count("<figure class=doubtful"), last.count("<figure")) == (PAGE, 3, 2)
    opened.clear()
    write_pages(tmp_path, shown, read)
    assert opened == []
    write_pages(tmp_path, [*shown[:-1], ReviewItem(entries[-1], 0.9, False, True)], read)
    assert opened == ["200.jpg", "201.jpg"]  # one page has changed
    write_pages(tmp_path, shown[:1], read)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["review-notes.html", "review.html"]
