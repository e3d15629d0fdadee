"""What systems and programs leave in folders is no picture, and is counted."""

from __future__ import annotations

import pytest

from kvg.catalogue.walking import is_hidden, walk

HIDDEN = (
    ".ipynb_checkpoints", "__MACOSX", "@eaDir", ".thumbnails", ".git", ".Trashes", ".Spotlight-V100", "$RECYCLE.BIN",
    "System Volume Information", "lost+found", "#recycle", "._x.jpg", ".trash-0.jpg", ".DS_Store", "Thumbs.db",
    "thumbs.db", "desktop.ini", ".hidden.png",
)  # fmt: skip
MEANT = ("St. Bernard", "x.jpg", "_x.jpg", "MACOSX", "lost", "#1.jpg", "$5.jpg", "eaDir", "a.b.png", "~x.jpg", "@home")


@pytest.mark.parametrize("name", HIDDEN)
def test_what_is_hidden(name):
    assert is_hidden(name)


@pytest.mark.parametrize("name", MEANT)
def test_what_is_meant(name):
    assert not is_hidden(name)


def test_a_walk(tmp_path):
    root = tmp_path / ".cache/pictures"  # what stands above does not count
    for name in ("b/2.jpg", "a/1.JPG", "a/.x.jpg", "a/note.txt", ".git/objects/1.png", "c/@eaDir/2.jpg", "c/3.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    walked = walk(root)
    assert [path.relative_to(root).as_posix() for path in walked.pictures()] == ["a/1.JPG", "b/2.jpg", "c/3.png"]
    assert list(walked.pictures()) == [p for p in sorted(root.rglob("*")) if p in set(walked.pictures())]  # as before
    assert [path.relative_to(root).as_posix() for path in walked.hidden] == [".git", "a/.x.jpg", "c/@eaDir"]
    assert walk(root / "nowhere").files == []
