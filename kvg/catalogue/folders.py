"""Folders of pictures: one folder an entity, or names beside the files; cut-outs with alpha are the same."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

from kvg.catalogue.listing import FileSource, Listing
from kvg.errors import DataError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_ARTICLE = re.compile(r"^(?:an?|the|some)\s+", re.IGNORECASE)
_REMARK = re.compile(r"[(,;]")


class ImageFolder(FileSource):
    """Pictures in folders: ``category/entity/picture.jpg``, or ``category/entity.png``.

    The entity stands on line 1 of ``NAME.txt`` beside ``NAME.png`` (without a leading article, and remarks in brackets
    or behind a comma), else it is the subfolder's name, or the file's where there is no subfolder; underscores are
    spaces.

    Args:
        root: the folder.
        categories: ``{folder relative to root: category}``; by default each subfolder of ``root`` is one.
            ``{".": name}`` where root itself holds the entities of one category.
        exclude: shell patterns of paths relative to ``root`` that are left out, such as ``*/cartoon/*``.
        licence: of all of them.
    """

    def __init__(
        self,
        root: str | Path,
        categories: Mapping[str, str] | None = None,
        exclude: Sequence[str] = (),
        licence: str = "",
    ) -> None:
        super().__init__(root)
        self.exclude, self.licence = tuple(exclude), licence
        folders = [path.name for path in sorted(self.root.iterdir()) if path.is_dir()]
        self.categories = dict(categories) if categories is not None else {name: name for name in folders}
        if not self.categories:
            raise DataError(str(self.root), "root", "holds no folder; make one of pictures for each category")
        for name in self.categories:
            if not (self.root / name).is_dir():
                raise DataError(str(self.root / name), "categories", "is not a folder; correct the name")

    def listings(self) -> Iterator[Listing]:
        """See ``PictureSource``."""
        for name, category in self.categories.items():
            folder = self.root / name
            for path in sorted(folder.rglob("*")):
                ref = path.relative_to(self.root).as_posix()
                if path.suffix.lower() not in PICTURE_SUFFIXES or any(fnmatch(ref, p) for p in self.exclude):
                    continue
                yield Listing(ref, entity_name(path, folder), category.replace("_", " "), licence=self.licence)


def entity_name(path: Path, folder: Path) -> str:
    """The entity on a picture, by the rules of ``ImageFolder``."""
    label = path.with_suffix(".txt")
    if label.is_file():
        lines = label.read_text("utf-8", errors="replace").splitlines()
        name = _ARTICLE.sub("", _REMARK.split(lines[0], maxsplit=1)[0].strip().rstrip(".!")) if lines else ""
        if name:
            return name
    parts = path.relative_to(folder).parts
    return (parts[0] if len(parts) > 1 else path.stem).replace("_", " ").strip()
