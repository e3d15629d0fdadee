"""YOLO: ``data.yaml`` with the names of classes, ``images/NAME.jpg`` and ``labels/NAME.txt``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

import yaml

from kvg.box_forms import BoxForm
from kvg.config.settings import read_yaml
from kvg.errors import DataError
from kvg.formats.exchange.base import ExchangeFormat, Keys, OpenPicture, PictureWriter, Source
from kvg.formats.exchange.picture import AnnotatedPicture, LabelledBox
from kvg.records import excerpt, list_of, number_of, read_text, text_of
from kvg.shards.reader import Tally

_DATA: Final = "data.yaml"
_SETS: Final = ("train", "val", "test")
_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_MAX_BYTES: Final = 256 << 20


class YoloFormat(ExchangeFormat):
    """YOLO's detection format: lines of ``class cx cy width height`` as shares of the sides; a score may follow.

    Numbers are written with all their digits, so that boxes come back exactly. ``train`` and ``val`` of ``data.yaml``
    both name the one set that was written.
    """

    name = "yolo"
    entries = (_DATA, "images", "labels", "predictions")
    box_form = BoxForm("unit", "cxcywh")
    left_out = "targets, categories, traits, rationales, splits and knowledge"

    def write(self, pictures: Iterable[AnnotatedPicture], folder: Path) -> int:
        """See ``ExchangeFormat``; predictions go to ``predictions/NAME.txt``, with their score."""
        writer, classes, num = PictureWriter(folder / "images"), dict[str, int](), 0
        (folder / "labels").mkdir()
        for picture in pictures:
            writer.write(picture)
            lines = [_line(picture, box, classes) for box in picture.boxes]
            (folder / "labels" / f"{picture.key}.txt").write_text("".join(lines), "utf-8")
            if picture.predictions:
                (folder / "predictions").mkdir(exist_ok=True)
                lines = [_line(picture, box, classes, scored=True) for box in picture.predictions]
                (folder / "predictions" / f"{picture.key}.txt").write_text("".join(lines), "utf-8")
            num += 1
        names = {number: name for name, number in classes.items()}
        data = {"path": ".", "train": "images", "val": "images", "names": names}
        (folder / _DATA).write_text(yaml.safe_dump(data, allow_unicode=True, sort_keys=False, width=1000), "utf-8")
        return num

    def read(self, source: Source, tally: Tally) -> Iterator[AnnotatedPicture]:
        """Reads the sets that ``data.yaml`` names; a picture without a file of labels has no boxes."""
        data = read_yaml(source.path, texts=True)  # a class may have the name `no` or `737`
        names, keys = _names(str(source.path), data.get("names")), Keys()
        files = [
            (folder, path)
            for folder in _folders(source, data)
            for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
        ]
        for folder, path in source.counted(files):
            try:
                yield _picture(source, folder, path, names, tally).annotated(keys.key(path.name))
            except DataError as error:
                tally.note(error)


def _line(picture: AnnotatedPicture, box: LabelledBox, classes: dict[str, int], scored: bool = False) -> str:
    x1, y1, x2, y2 = box.box_px
    shares = [(x1 + x2) / 2 / picture.width, (y1 + y2) / 2 / picture.height]
    shares += [(x2 - x1) / picture.width, (y2 - y1) / picture.height]
    if scored:
        shares.append(1.0 if box.score is None else box.score)
    return " ".join([str(classes.setdefault(box.label, len(classes))), *map(repr, map(float, shares))]) + "\n"


def _names(where: str, value: Any) -> dict[str, str]:
    """Returns names by class number, from a list or a mapping."""
    pairs = value.items() if isinstance(value, dict) else enumerate(list_of(where, "names", value))
    return {str(number): text_of(where, {"names": name}, "names") for number, name in pairs}


def _folders(source: Source, data: dict[str, Any]) -> Iterator[Path]:
    """Yields the folders of the pictures, each once; all lie below the folder of ``data.yaml``."""
    if source.images:
        source.folder()
        yield source.images
        return
    root, where, seen = source.path.parent.resolve(), str(source.path), set[Path]()
    sets = [data[name] for name in _SETS if data.get(name)]
    for value in (item for one in sets for item in (one if isinstance(one, list) else [one])):
        if not isinstance(value, str):
            raise DataError(where, "train", f"{excerpt(value)} must be a folder; correct it")
        # `path` of data.yaml is usually a folder of the author's machine, and `../train/images` means `train/images`.
        parts = [part for part in PurePosixPath(value).parts if part not in ("..", "/")]
        places = [root.joinpath(*parts[first:]) for first in range(len(parts))] or [root]
        place = next((place.resolve() for place in places if place.is_dir()), None)
        if place is None or not place.is_relative_to(root):
            remedy = f"{excerpt(value)} is no folder below {root}; state the folder of the pictures (--images)"
            raise DataError(where, "train", remedy)
        if place not in seen:
            seen.add(place)
            yield place
    if not seen:
        raise DataError(where, "train", "is missing; name a folder of pictures in train, val or test")


def _picture(source: Source, folder: Path, path: Path, names: dict[str, str], tally: Tally) -> OpenPicture:
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(str(path), "image", f"leads out of {folder}; copy the picture there")
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(str(path), "image", f"has more than {_MAX_BYTES >> 20} MiB; give a picture")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(str(path), "image", f"cannot be opened ({error.strerror}); correct it") from error
    picture = OpenPicture(source, str(path), data)
    for kind in ("labels", "predictions"):
        file = _beside(path, kind)
        if file.is_file():
            _add_lines(picture, file, names, tally, predicted=kind == "predictions")
    return picture


def _beside(path: Path, kind: str) -> Path:
    """Returns the file of labels of a picture: the last folder ``images`` of its path becomes ``labels``."""
    parts = list(path.parts)
    last = max((i for i, part in enumerate(parts) if part == "images"), default=None)
    if last is not None:
        parts[last] = kind
    elif kind != "labels":
        return path.with_name("")
    return Path(*parts).with_suffix(".txt")


def _add_lines(picture: OpenPicture, file: Path, names: dict[str, str], tally: Tally, *, predicted: bool) -> None:
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        where, cells = f"{file} line {number}", line.split()
        if not cells:
            continue
        label = names.get(cells[0])
        if label is None:
            raise DataError(where, "class", f"{excerpt(cells[0])} is none of the {len(names)} names; correct it")
        score = number_of(cells[5]) if len(cells) == 6 else None
        raw = cells[1:5] if len(cells) == 5 or score is not None else cells[1:]
        form = picture.source.form(YoloFormat.box_form)
        picture.add(label, raw, form, f"line {number} of {file.name}", tally, predicted=predicted, score=score)
