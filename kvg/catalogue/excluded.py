"""Perceptual hashes of pictures that must not be trained on. They are compared with those of the sources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from kvg.catalogue.hashing import perceptual_hash
from kvg.catalogue.tables import Parquet
from kvg.catalogue.walking import walk
from kvg.errors import DataError
from kvg.pictures import read_picture


def excluded_hashes(places: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Computes hashes of the pictures in folders and parquet files.

    Args:
        places: paths of section ``exclude`` of a project file.

    Returns:
        The hash of each picture by its name, and remarks about pictures that cannot be compared.

    Raises:
        DataError: a path is neither a folder nor a parquet file.
    """
    hashes, remarks = {}, []
    for place in places:
        faults, num_hidden = list[DataError](), 0
        for name, data in _pictures_of(Path(place)):
            if data is None:
                num_hidden += 1
                continue
            try:
                if isinstance(data, DataError):
                    raise data
                hashes[name] = f"{perceptual_hash(read_picture(data, name)):040x}"
            except DataError as error:
                faults.append(error)
        if num_hidden:
            remarks.append(f"exclude: {num_hidden} hidden or system files of {place} are skipped")
        if faults:
            remarks.append(f"exclude: {len(faults)} pictures of {place} cannot be compared; the first: {faults[0]}")
    return hashes, remarks


def _pictures_of(place: Path) -> Iterator[tuple[str, bytes | DataError | None]]:
    """Yields name and content of each picture, or the error why it cannot be read; None for a hidden file."""
    if place.is_dir():
        walked = walk(place)
        yield from ((str(path), None) for path in walked.hidden)
        yield from ((str(path), DataError(str(path), "folder", "cannot be opened")) for path in walked.closed)
        for path in walked.pictures():
            try:
                yield str(path), path.read_bytes()
            except OSError as error:
                yield str(path), DataError(str(path), "image", f"cannot be opened ({error.strerror})")
    elif place.suffix == ".parquet" and place.is_file():
        yield from Parquet.pictures(place)
    else:
        raise DataError(str(place), "exclude", "is neither a folder nor a parquet file; correct the path")
