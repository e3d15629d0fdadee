"""Where tiles come from: the protocol of a source, and a folder of real photographs."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from kvg.catalogue.folders import entity_name
from kvg.errors import DataError
from kvg.pictures import read_file
from kvg.synthesis.tiles import Picture, Tile
from kvg.types import Box

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class EntityInfo:
    """What is known of an entity.

    Attributes:
        category: its category.
        split: ``seen`` or ``unseen``.
        knowledge: ``known``, ``unknown`` or '' where nobody has measured it.
        note: its looks in words, comma separated, '' where nobody has written them down.
    """

    category: str
    split: str = "seen"
    knowledge: str = ""
    note: str = ""


class TileSource(Protocol):
    """A supply of single-entity pictures. Picklable, so that composites can be made by several processes."""

    def categories(self) -> tuple[str, ...]:
        """All categories, in a fixed order."""

    def entities(self, category: str) -> tuple[str, ...]:
        """The entities of a category, in a fixed order."""

    def neighbours(self, entity: str) -> tuple[str, ...]:
        """Entities of the same category that are easily mistaken for this one; may be empty."""

    def info(self, entity: str) -> EntityInfo:
        """What is known of an entity."""

    def tile(self, entity: str, rng: random.Random) -> Image.Image | Tile:
        """A picture of an entity.

        Returns:
            A tile, or an RGBA image whose opaque pixels are the entity, unless ``info["box"]`` (x1, y1, x2, y2 in its
            pixels) says where in the picture the entity is. A tile that is kept is pasted much faster.

        Raises:
            DataError: the picture cannot be read.
        """


@dataclass(frozen=True)
class _Picture:
    path: Path
    box_px: Box | None


class FolderSource:
    """Photographs in folders.

    A category is a folder of pictures. The entity on a picture stands in the category's ``names.json``
    (``{path or file name: entity}``), else on line 1 of ``NAME.txt`` beside ``NAME.png`` (without a leading article and
    remarks in brackets or after a comma), else it is the name of the subfolder, or of the file where there is no
    subfolder; underscores are spaces. A cut-out (alpha)
    shows its own box; any other picture needs one in ``boxes.json``, which may lie in ``root`` or in the category's
    folder and holds ``{path relative to it: [x1, y1, x2, y2]}`` in pixels.

    Args:
        root: the folder.
        categories: ``{folder relative to root: category}``; by default each subfolder of ``root`` is one, or ``root``
            itself where it holds pictures.
        unseen: the categories that are kept out of training.
        knowledge: ``known`` or ``unknown`` by entity, where it has been measured.
        min_side: pictures with a side shorter than this many pixels are left out.
        exclude: shell patterns of paths relative to ``root``, such as ``*/cartoon/*``, that are left out.

    Raises:
        DataError: the folder is missing, a category is empty, or a box has no picture or lies outside it.
    """

    def __init__(
        self,
        root: str | Path,
        categories: Mapping[str, str] | None = None,
        unseen: Sequence[str] = (),
        knowledge: Mapping[str, str] | None = None,
        min_side: int = 0,
        exclude: Sequence[str] = (),
    ) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise DataError(str(self.root), "root", "is not a folder; point it at the folder of photographs")
        folders = dict(categories) if categories is not None else _default_categories(self.root)
        self._unseen, self._knowledge, self._min_side = tuple(unseen), dict(knowledge or {}), min_side
        self._exclude = tuple(exclude)
        self._pictures: dict[str, list[_Picture]] = {}
        self._category_of: dict[str, str] = {}
        self._entities: dict[str, list[str]] = {}
        root_boxes = _read_json(self.root / "boxes.json")
        for folder, category in folders.items():
            self._read_category(self.root / folder, category, root_boxes)
        for name in self._unseen:
            if name not in self._entities:
                raise DataError(str(self.root), "unseen", f"'{name}' is none of {sorted(self._entities)}")

    def categories(self) -> tuple[str, ...]:
        """See ``TileSource``."""
        return tuple(self._entities)

    def entities(self, category: str) -> tuple[str, ...]:
        """See ``TileSource``."""
        return tuple(self._entities[category])

    def neighbours(self, entity: str) -> tuple[str, ...]:
        """Empty: folders do not say who resembles whom."""
        return ()

    def info(self, entity: str) -> EntityInfo:
        """See ``TileSource``."""
        category = self._category_of[entity]
        split = "unseen" if category in self._unseen else "seen"
        return EntityInfo(category, split, self._knowledge.get(entity, ""))

    def tile(self, entity: str, rng: random.Random) -> Tile:
        """See ``TileSource``; mirrored half of the time, since most entities come with one photograph."""
        picture = rng.choice(self._pictures[entity])
        path = picture.path.relative_to(self.root).as_posix()
        return Tile(_opened(picture.path, picture.box_px is None), picture.box_px, path=path).mirror(rng)

    def _read_category(self, folder: Path, category: str, root_boxes: Mapping[str, Any]) -> None:
        if not folder.is_dir():
            raise DataError(str(folder), "categories", "is not a folder; correct the name")
        names = _read_json(folder / "names.json")
        boxes = {folder / path: box for path, box in _read_json(folder / "boxes.json").items()}
        boxes |= {self.root / path: box for path, box in root_boxes.items()}
        found = False
        for path in _images(folder):
            if any(fnmatch(path.relative_to(self.root).as_posix(), pattern) for pattern in self._exclude):
                continue
            picture = self._picture(path, boxes.get(path))
            if picture is None:
                continue
            entity = _entity_name(path, folder, names)
            if self._category_of.setdefault(entity, category) != category:
                raise DataError(str(path), "entity", f"'{entity}' is in {self._category_of[entity]} too; rename one")
            self._pictures.setdefault(entity, []).append(picture)
            if entity not in self._entities.setdefault(category, []):
                self._entities[category].append(entity)
            found = True
        if not found:
            raise DataError(str(folder), "category", f"'{category}' holds no usable picture; add some or leave it out")

    def _picture(self, path: Path, raw_box: object) -> _Picture | None:
        image = read_file(path)
        (width, height), has_alpha = image.size, image.mode == "RGBA"
        if min(width, height) < self._min_side:
            return None
        if raw_box is not None:
            return _Picture(path, _checked_box(path, raw_box, width, height))
        if not has_alpha:
            raise DataError(str(path), "box", "has neither alpha nor a box; add one to boxes.json")
        return _Picture(path, None)


def _default_categories(root: Path) -> dict[str, str]:
    if any(path.suffix.lower() in IMAGE_SUFFIXES for path in root.iterdir()):
        return {".": root.resolve().name}
    folders = {path.name: path.name for path in sorted(root.iterdir()) if path.is_dir()}
    if not folders:
        raise DataError(str(root), "root", "holds no category; make one folder of pictures for each")
    return folders


def _images(folder: Path) -> Iterator[Path]:
    yield from (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in IMAGE_SUFFIXES)


def _entity_name(path: Path, folder: Path, names: Mapping[str, Any]) -> str:
    for key in (path.relative_to(folder).as_posix(), path.name):
        if key in names:
            return str(names[key])
    return entity_name(path, folder)


def _read_json(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise DataError(str(path), "json", f"cannot be read ({error}); correct it") from error
    if not isinstance(value, dict):
        raise DataError(str(path), "json", "must be an object that maps file names to values")
    return value


def _checked_box(path: Path, raw: object, width: int, height: int) -> Box:
    try:
        x1, y1, x2, y2 = (float(value) for value in raw)  # type: ignore[attr-defined]
    except (TypeError, ValueError) as error:
        raise DataError(str(path), "box", f"{raw!r} is not [x1, y1, x2, y2]; correct boxes.json") from error
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        remedy = f"{raw} does not lie inside its {width}x{height} image; correct boxes.json (pixels, x1 < x2, y1 < y2)"
        raise DataError(str(path), "box", remedy)
    return x1, y1, x2, y2


@lru_cache(maxsize=256)
def _opened(path: Path, cut_out: bool) -> Picture:
    return Picture(read_file(path), str(path), cropped=cut_out)
