"""Folders of pictures: one folder an entity, or names beside the files; cut-outs with alpha are the same."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

from kvg.catalogue.listing import FileSource, Listed, Listing, Unusable, passed_over
from kvg.catalogue.walking import subfolders, walk
from kvg.errors import ConfigError, DataError
from kvg.records import excerpt, is_utf8, read_text
from kvg.text.names import clean_name

_ARTICLE = re.compile(r"^(?:an?|the|some)\s+", re.IGNORECASE)
_REMARK = re.compile(r"[(,;]")


class ImageFolder(FileSource):
    """Pictures in folders: ``category/entity/picture.jpg``, or ``category/entity.png``.

    The entity stands on line 1 of ``NAME.txt`` beside ``NAME.png`` (without a leading article, and remarks in brackets
    or behind a comma), else it is the subfolder's name, or the file's where there is no subfolder; underscores are
    spaces. Files and folders of systems and programs are passed over by name.

    Args:
        root: the folder.
        categories: ``{folder relative to root: category}``; by default each subfolder of ``root`` is one.
            ``{".": name}`` where root itself holds the entities of one category.
        exclude: shell patterns of paths relative to ``root`` that are left out, such as ``*/cartoon/*``.
        licence: of all of them.

    Raises:
        ConfigError: ``exclude`` is no list.
        DataError: a folder is missing.
    """

    def __init__(
        self,
        root: str | Path,
        categories: Mapping[str, str] | None = None,
        exclude: Sequence[str] = (),
        licence: str = "",
    ) -> None:
        super().__init__(root)
        self.exclude, self.licence = patterns(exclude), licence
        self.categories = category_folders(self.root, categories)
        if not self.categories:
            raise DataError(str(self.root), "root", "holds no folder; make one of pictures for each category")

    def listings(self) -> Iterator[Listed]:
        """See ``PictureSource``."""
        if "." not in self.categories:
            yield from (unusable for unusable in passed_over(walk(self.root), self.root) if "/" not in unusable.ref)
        for name, category in self.categories.items():
            folder = self.root / name
            walked = walk(folder)
            yield from passed_over(walked, self.root)
            for path in walked.pictures():
                ref = path.relative_to(self.root).as_posix()
                if any(fnmatch(ref, pattern) for pattern in self.exclude):
                    continue
                try:
                    entity = entity_name(path, folder)
                except DataError as error:
                    yield Unusable(ref, error.field, f"{error.where} {error.remedy}")
                else:
                    yield Listing(ref, entity, category.replace("_", " "), licence=self.licence)


def category_folders(root: Path, categories: Mapping[str, str] | None) -> dict[str, str]:
    """Folders of pictures and the categories that they hold.

    Args:
        root: folder of all of them.
        categories: ``{folder relative to root: category}``; None for each subfolder under its own name.

    Raises:
        ConfigError: ``categories`` is something else.
        DataError: a folder is missing or cannot be read.
    """
    try:
        names = subfolders(root)
    except OSError as error:
        raise DataError(str(root), "root", f"cannot be read ({error.strerror}); correct its permissions") from error
    if categories is None:
        return {name: name for name in names}
    if not isinstance(categories, Mapping) or not all(isinstance(name, str) for name in categories.values()):
        raise ConfigError("categories", f"{excerpt(categories)} should hold `folder: category` lines")
    spelled = {clean_name(name): name for name in names}
    folders: dict[str, str] = {}
    for folder, category in categories.items():
        name = str(folder) if (root / str(folder)).is_dir() else spelled.get(clean_name(str(folder)), "")
        if not name:
            raise DataError(str(root / str(folder)), "categories", "is not a folder; correct the name")
        folders[name] = category
    return folders


def patterns(values: Sequence[str]) -> tuple[str, ...]:
    """Shell patterns that were given as a list.

    Raises:
        ConfigError: they are something else.
    """
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ConfigError("exclude", f"{excerpt(values)} is no list of patterns; write ['*/cartoon/*']")
    return tuple(map(str, values))


def entity_name(path: Path, folder: Path) -> str:
    """The entity on a picture, by the rules of ``ImageFolder``.

    Raises:
        DataError: the file with its name cannot be read, or the name is no valid text.
    """
    label = path.with_suffix(".txt")
    name = ""
    if label.is_file():
        line = read_text(label).lstrip("\n").partition("\n")[0]
        name = _ARTICLE.sub("", _REMARK.split(line, maxsplit=1)[0].strip().rstrip(".!"))
    if not name:
        parts = path.relative_to(folder).parts
        name = (parts[0] if len(parts) > 1 else path.stem).replace("_", " ")
    if not is_utf8(name):
        raise DataError(excerpt(str(path)), "name", "is no valid text; rename it")
    return clean_name(name)
