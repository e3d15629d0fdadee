"""Where tiles come from: the protocol of a source, and a folder of real photographs."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from kvg.box_forms import BoxesOf, BoxForm, BoxFormat, BoxUnit
from kvg.catalogue.examine import alpha_box
from kvg.catalogue.folders import category_folders, entity_name, patterns
from kvg.catalogue.listing import BoxRules
from kvg.catalogue.walking import is_hidden, walk
from kvg.composites.cutting import Cut
from kvg.composites.mirroring import Mirroring
from kvg.composites.tiles import Picture, Tile
from kvg.errors import DataError
from kvg.pictures import read_file, read_picture
from kvg.records import object_of, read_json, text_of
from kvg.text.names import clean_name
from kvg.text.special_tokens import check_plain
from kvg.types import Box

log = logging.getLogger(__name__)
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class EntityInfo:
    """What is known of an entity.

    Attributes:
        category: its category.
        split: ``seen`` or ``unseen``.
        knowledge: ``known``, ``unknown`` or '' where nobody has measured it.
        traits: its looks in words; empty where nobody has written them down.
    """

    category: str
    split: str = "seen"
    knowledge: str = ""
    traits: tuple[str, ...] = ()


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
            A tile, or an RGBA image whose opaque pixels are the entity. A tile that is kept is pasted much faster.

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
    subfolder; underscores are spaces. A cut-out (alpha) shows its own box; any other picture needs one in
    ``boxes.json``, which may lie in ``root`` or in the category's folder and holds ``{path relative to it: box}``.

    A picture that cannot be used is left out; the log says how many there are, why, and which is the first.

    Args:
        root: the folder.
        categories: ``{folder relative to root: category}``; by default each subfolder of ``root`` is one, or ``root``
            itself where it holds pictures.
        unseen: the categories that are kept out of training.
        knowledge: ``known`` or ``unknown`` by entity, where it has been measured.
        min_side: pictures with a side shorter than this many pixels are left out.
        exclude: shell patterns of paths relative to ``root``, such as ``*/cartoon/*``, that are left out.
        margin: ``[low, high]``, what is left around a box when a photograph is cut, as shares of the square root of the
            box's area; None: photographs are used whole.
        min_cut_px: pixels that each side of a cut has at least, where the photograph has them.
        mirror: whether tiles are mirrored half of the time.
        unmirrored_categories: categories whose tiles are never mirrored, since they carry text.
        box_unit: of boxes: ``pixels``, ``relative_1000`` (0-1000 over width and height) or ``unit`` (0-1).
        box_format: ``xyxy`` (two corners), ``xywh`` (corner, width, height) or ``cxcywh`` (centre, width, height).
        boxes_of: ``upright`` where boxes belong to pictures as they are shown, ``raw`` where they belong to their
            pixels as stored, before EXIF turns them.

    Attributes:
        rejected: pictures that cannot be used, and why.

    Raises:
        ConfigError: a setting cannot work.
        DataError: the folder is missing, a category has no picture that can be used, or an entity is in two categories.
    """

    def __init__(
        self,
        root: str | Path,
        categories: Mapping[str, str] | None = None,
        unseen: Sequence[str] = (),
        knowledge: Mapping[str, str] | None = None,
        min_side: int = 0,
        exclude: Sequence[str] = (),
        box_unit: BoxUnit = "pixels",
        box_format: BoxFormat = "xyxy",
        boxes_of: BoxesOf = "upright",
        margin: tuple[float, float] | None = None,
        min_cut_px: int = 64,
        mirror: bool = True,
        unmirrored_categories: Sequence[str] = (),
    ) -> None:
        self._cut = Cut.of(margin, min_cut_px, "source")
        self.root = Path(root)
        if not self.root.is_dir():
            raise DataError(str(self.root), "root", "is not a folder; point it at the folder of photographs")
        self.rejected: list[DataError] = []
        self._rules = BoxRules(BoxForm(box_unit, box_format), boxes_of)
        self._unseen, self._min_side = tuple(map(clean_name, unseen)), min_side
        self._knowledge = {clean_name(str(name)): value for name, value in (knowledge or {}).items()}
        self._exclude = patterns(exclude)
        self._pictures: dict[str, list[_Picture]] = {}
        self._category_of: dict[str, str] = {}
        self._entities: dict[str, list[str]] = {}
        self._num_hidden = self._num_small = 0
        root_boxes = _read_object(self.root / "boxes.json")
        boxes = {self.root / path: box for path, box in root_boxes.items()}
        for folder, category in _category_folders(self.root, categories).items():
            check_plain(category, str(self.root / folder), "category")
            self._read_category(self.root / folder, clean_name(category), boxes)
        for name in self._unseen:
            if name not in self._entities:
                raise DataError(str(self.root), "unseen", f"'{name}' is none of {sorted(self._entities)}")
        self._report(boxes)
        unmirrored = {"unmirrored_categories": (unmirrored_categories, self._entities)}
        self._mirror = Mirroring.of(mirror, unmirrored, "source")

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
        tile = Tile(_opened(picture.path, picture.box_px is None), picture.box_px, path=path)
        tile = self._cut.draw(tile, rng) if self._cut else tile
        return self._mirror.draw(tile, rng, unmirrored_categories=self._category_of[entity])

    def _read_category(self, folder: Path, category: str, root_boxes: Mapping[Path, Any]) -> None:
        names = {clean_name(name): value for name, value in _read_object(folder / "names.json").items()}
        boxes = {folder / path: box for path, box in _read_object(folder / "boxes.json").items()} | dict(root_boxes)
        walked, num_rejected = walk(folder), len(self.rejected)
        self._num_hidden += len(walked.hidden)
        self.rejected += [DataError(str(path), "folder", "cannot be opened") for path in walked.closed]
        for path in walked.pictures(IMAGE_SUFFIXES):
            if any(fnmatch(path.relative_to(self.root).as_posix(), pattern) for pattern in self._exclude):
                continue
            try:
                entity, picture = _entity_name(path, folder, names), self._picture(path, boxes.get(path))
                check_plain(entity, str(path), "entity")
            except DataError as error:
                self.rejected.append(error)
                continue
            if picture is None:
                self._num_small += 1
                continue
            if self._category_of.setdefault(entity, category) != category:
                raise DataError(str(path), "entity", f"'{entity}' is in {self._category_of[entity]} too; rename one")
            self._pictures.setdefault(entity, []).append(picture)
            if entity not in self._entities.setdefault(category, []):
                self._entities[category].append(entity)
        if category not in self._entities:
            reason = f" ({self.rejected[num_rejected]})" if len(self.rejected) > num_rejected else ""
            remedy = f"'{category}' holds no usable picture{reason}; add some or leave it out"
            raise DataError(str(folder), "category", remedy)

    def _picture(self, path: Path, raw_box: object) -> _Picture | None:
        data = _read_bytes(path)
        image = read_picture(data, str(path))
        (width, height), has_alpha = image.size, image.mode == "RGBA"
        if min(width, height) < self._min_side:
            return None
        if raw_box is None and not has_alpha:
            raise DataError(str(path), "box", "has neither alpha nor a box; add one to boxes.json")
        if raw_box is None:
            try:
                alpha_box(image)
            except DataError as error:  # nothing is opaque
                raise DataError(str(path), error.field, error.remedy) from error
            return _Picture(path, None)
        return _Picture(path, self._rules.upright(raw_box, data, image.size, str(path)))

    def _report(self, boxes: Mapping[Path, Any]) -> None:
        """Says in the log what has been left out."""
        if self.rejected:
            fields = Counter(error.field for error in self.rejected)
            counts = ", ".join(f"{field} {num}" for field, num in sorted(fields.items()))
            first = self.rejected[0]
            log.warning("%s: %d pictures left out (%s); the first: %s", self.root, len(self.rejected), counts, first)
        unused = [path for path in boxes if not path.is_file()]
        if unused:
            log.warning("%s: %d boxes of boxes.json belong to no picture: %s ...", self.root, len(unused), unused[0])
        if self._num_hidden or self._num_small:
            passed = self._num_hidden, self._num_small
            log.info("%s: %d hidden or system files and %d small pictures passed over", self.root, *passed)


def _category_folders(root: Path, categories: Mapping[str, str] | None) -> dict[str, str]:
    if categories is None and any(path.suffix.lower() in IMAGE_SUFFIXES for path in _visible(root)):
        return {".": root.resolve().name}
    folders = category_folders(root, categories)
    if not folders:
        raise DataError(str(root), "root", "holds no category; make one folder of pictures for each")
    return folders


def _visible(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if not is_hidden(path.name)]
    except OSError as error:
        raise DataError(str(folder), "root", f"cannot be read ({error.strerror}); correct its permissions") from error


def _entity_name(path: Path, folder: Path, names: Mapping[str, Any]) -> str:
    for key in (path.relative_to(folder).as_posix(), path.name):
        if clean_name(key) in names:
            return clean_name(text_of(f"{folder / 'names.json'}: {key}", {"name": names[clean_name(key)]}, "name"))
    return entity_name(path, folder)


def _read_object(path: Path) -> Mapping[str, Any]:
    return object_of(str(path), "json", read_json(path)) if path.is_file() else {}


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(str(path), "image", f"cannot be opened ({error.strerror}); correct its permissions") from error


@lru_cache(maxsize=256)
def _opened(path: Path, cut_out: bool) -> Picture:
    return Picture(read_file(path), str(path), cropped=cut_out)
