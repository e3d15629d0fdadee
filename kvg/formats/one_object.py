"""Samples of lists whose pictures show one object each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kvg.benchmark import split_of
from kvg.formats.published import safe_key
from kvg.pictures import standard_picture
from kvg.shards.schema import check_sample
from kvg.types import Box, Sample, SceneObject


def one_object(
    path: Path,
    position: int,
    where: str,
    name: str,
    data: bytes,
    category: str,
    entity: str,
    box: Box | None = None,
    **fields: Any,
) -> Sample:
    """A sample of a picture with one object.

    Args:
        path: the list.
        position: of its row.
        where: the row, for errors.
        name: of the picture in the list.
        data: the picture's file.
        category: of the entity.
        entity: what is on the picture.
        box: in pixels of the upright picture; None for the whole picture.
        fields: further fields of the sample.

    Raises:
        DataError: the picture cannot be read, or the sample is not a valid one.
    """
    image, width, height = standard_picture(data, where)
    sample = Sample(
        key=f"{safe_key(path.stem)}-{position:06d}",
        image=image,
        width=width,
        height=height,
        category=category,
        split=split_of(category),
        objects=(SceneObject(entity, box or (0.0, 0.0, float(width), float(height))),),
        target=0,
        provenance={"file": path.name, "row": position, "image": name},
        **fields,
    )
    check_sample(sample, where)
    return sample
