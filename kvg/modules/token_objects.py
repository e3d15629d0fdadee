"""Which object of its sample each visual token of a batch lies on."""

from __future__ import annotations

from torch import Tensor

from kvg.backbones.backbone import Backbone
from kvg.batches import Batch
from kvg.boxes import cell_owners
from kvg.errors import ConfigError


def token_objects(backbone: Backbone, batch: Batch) -> list[Tensor]:
    """Index of the object under each visual token, ``[tokens]`` for each sample; -1 = none. See ``cell_owners``.

    Raises:
        ConfigError: the batch has no picture, or the visual tokens form no grid.
    """
    pictures = batch.pictures
    grids = None if pictures is None else backbone.family.token_grids(pictures, backbone.processor.pictures)
    if grids is None:
        raise ConfigError("model.backbone", "its visual tokens form no single grid, which this training needs")
    return [
        cell_owners([item.box_px for item in sample.objects], sample.width, sample.height, rows, columns)
        for sample, (rows, columns) in zip(batch.samples, grids, strict=True)
    ]
