"""Sources that are folders of pictures: one folder per entity, or a text file with the name beside each picture."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

from kvg.catalogue.listing import FileSource, Listed, Listing, Unusable, skipped_files
from kvg.catalogue.walking import subfolders, walk
from kvg.errors import ConfigError, DataError
from kvg.records import excerpt, is_utf8, read_text
from kvg.text.names import clean_name

_ARTICLE = re.compile(r"^(?:an?|the|some)\s+", re.IGNORECASE)
_REMARK = re.compile(r"[(,;]")


class ImageFolder(FileSource):
    """Pictures in folders: ``category/entity/picture.jpg``, or ``category/entity.png``.

    The entity is line 1 of ``NAME.txt`` beside ``NAME.png``, without a leading article and without remarks in brackets
    or after a comma. Without such a file it is the subfolder's name, or the file's name if there is no subfolder;
    underscores become spaces. Files and folders of the operating system and of programs are skipped and listed.

    Args:
        root: the folder.
        categories: ``{folder relative to root: category}``; by default each subfolder of ``root`` is a category. Use
            ``{".": name}`` if ``root`` itself contains the entities of one category.
        exclude: shell patterns of paths relative to ``root`` that are left out, such as ``*/cartoon/*``.
        licence: licence of all pictures.

    Raises:
        ConfigError: ``exclude`` is not a list.
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
            raise DataError(str(self.root), "root", "contains no folder; make a folder of pictures for each category")

    def listings(self) -> Iterator[Listed]:
        """See ``PictureSource``."""
        if "." not in self.categories:
            yield from (unusable for unusable in skipped_files(walk(self.root), self.root) if "/" not in unusable.ref)
        for name, category in self.categories.items():
            folder = self.root / name
            walked = walk(folder)
            yield from skipped_files(walked, self.root)
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
    """Returns folders of pictures with their categories.

    Args:
        root: folder that contains them.
        categories: ``{folder relative to root: category}``; None for each subfolder under its own name.

    Raises:
        ConfigError: ``categories`` is not such a mapping.
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
    """Checks a list of shell patterns and returns it as a tuple.

    Raises:
        ConfigError: the value is not a list.
    """
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ConfigError("exclude", f"{excerpt(values)} is no list of patterns; write ['*/cartoon/*']")
    return tuple(map(str, values))


def entity_name(path: Path, folder: Path) -> str:
    """Returns the entity on a picture by the rules of ``ImageFolder``.

    Raises:
        DataError: the text file with the name cannot be read, or the name is not valid UTF-8.
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
