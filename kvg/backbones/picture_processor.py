"""From pictures to what a vision tower takes: the interface, and the patches of the Qwen-VL families.

Transformers' own image processor costs several times the JPEG decode; this one is numpy on top of PIL and agrees with
it exactly (tests/backbones).
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from kvg.backbones.picture_settings import PatchSettings, PictureSettings, check_areas
from kvg.batches import Picture
from kvg.pictures import as_rgb
from kvg.text.box_codec import ImageSize


class PictureProcessor(Protocol):
    """How a family cuts pictures. Picklable."""

    @property
    def settings(self) -> PictureSettings:
        """How large pictures may be, and how they are cut."""

    def image_size(self, width: int, height: int) -> ImageSize:
        """Both sizes of a picture: as stored, and as the model gets it.

        Raises:
            ValueError: the model cannot take a picture of this shape.
        """

    def picture(self, image: Image.Image, source: bytes = b"") -> Picture:
        """Tensors of a picture.

        Args:
            image: decoded.
            source: the encoded file.
        """

    def file_content(self) -> dict[str, Any]:
        """Content of ``preprocessor_config.json``, from which transformers and vLLM build the same."""


class PatchProcessor:
    """Cuts pictures into patches, which stay bytes: an eighth of what the tower takes has to travel and be kept.

    A picture's tensors are ``patches`` ``[P, 3 * patch * patch]`` uint8 and ``grid`` ``[1, 3]``: frames, rows and
    columns of patches.

    Args:
        settings: of a checkpoint, with the areas of a config.

    Raises:
        ConfigError: no picture can be resized into these areas.
    """

    def __init__(self, settings: PatchSettings) -> None:
        check_areas(settings)
        self.settings = settings
        mean, std = (torch.tensor(x, dtype=torch.float64) for x in (settings.image_mean, settings.image_std))
        self._scale, self._shift = (1 / (255 * std)).float().view(3, 1, 1), (mean / std).float().view(3, 1, 1)

    def image_size(self, width: int, height: int) -> ImageSize:
        """See ``PictureProcessor.image_size``."""
        return ImageSize(width, height, *self.resized(width, height))

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height that a picture gets.

        Raises:
            ValueError: the model cannot take a picture of this shape.
        """
        s = self.settings
        rows, columns = smart_resize(height, width, s.cell, s.min_pixels, s.max_pixels)
        return columns, rows

    def picture(self, image: Image.Image, source: bytes = b"") -> Picture:
        """See ``PictureProcessor.picture``."""
        size = self.image_size(*image.size)
        image = as_rgb(image)
        if image.size != (size.resized_width, size.resized_height):
            image = image.resize((size.resized_width, size.resized_height), Image.Resampling.BICUBIC)
        p, m = self.settings.patch_size, self.settings.merge_size
        rows, columns = size.resized_height // p, size.resized_width // p
        cut = np.array(image).reshape(rows // m, m, p, columns // m, m, p, 3).transpose(0, 3, 1, 4, 6, 2, 5)
        patches = torch.from_numpy(cut.reshape(rows * columns, -1))
        grid = torch.tensor([[1, rows, columns]])
        return Picture({"patches": patches, "grid": grid}, rows * columns // m**2, source)

    def pixel_values(self, patches: Tensor) -> Tensor:
        """What the vision tower takes: patches normalised, and repeated as the frames of a still picture.

        Args:
            patches: ``[P, 3 * patch * patch]`` uint8, on any device.

        Returns:
            ``[P, 3 * temporal * patch * patch]`` float32.
        """
        scale, shift = self._scale.to(patches.device), self._shift.to(patches.device)
        # In place, since most of the time goes into memory that is touched for the first time.
        pixels = patches.view(len(patches), 3, 1, -1).to(torch.float32, copy=True).mul_(scale).sub_(shift)
        return pixels.expand(-1, -1, self.settings.temporal_patch_size, -1).reshape(len(patches), -1)

    def file_content(self) -> dict[str, Any]:
        """See ``PictureProcessor.file_content``."""
        s = self.settings
        # All is spelt out: transformers would fill in what is missing, while vLLM shows the model raw bytes instead.
        return {
            "image_processor_type": "Qwen2VLImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "resample": 3,  # bicubic
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(s.image_mean),
            "image_std": list(s.image_std),
            "size": {"shortest_edge": s.min_pixels, "longest_edge": s.max_pixels},
            "patch_size": s.patch_size,
            "merge_size": s.merge_size,
            "temporal_patch_size": s.temporal_patch_size,
        }
