"""Rules by which pictures may have been resized when a model learnt boxes in pixels of the resized picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from kvg.backbones.backbone import Backbone
from kvg.backbones.picture_processor import PatchProcessor
from kvg.backbones.picture_settings import PatchSettings
from kvg.text.box_codec import ImageSize

OWN: Final = "as in this run"
_PUBLISHED: Final[Mapping[str, PatchSettings]] = {
    "at most 401,408 pixels (the paper)": PatchSettings(max_pixels=401_408),
    "at most 1,003,520 pixels (transformers)": PatchSettings(),
    "at most 12,845,056 pixels (Qwen2-VL, Qwen2.5-VL)": PatchSettings(max_pixels=12_845_056),
    "at most 16,777,216 pixels (Qwen3-VL)": PatchSettings(65_536, 16_777_216, patch_size=16),
}


class ResizeRules:
    """Sizes of a picture under each rule: that of the run, that of the checkpoint, and the published ones.

    Args:
        backbone: the model, with the areas of its config.
    """

    def __init__(self, backbone: Backbone) -> None:
        own = backbone.processor.pictures
        self._rules = {OWN: own}
        least, most = backbone.stored_pixels
        if (least, most) != (own.settings.min_pixels, own.settings.max_pixels):
            stored = replace(own.settings, min_pixels=least, max_pixels=most)
            self._rules[f"at most {most:,} pixels (the checkpoint)"] = backbone.family.picture_processor(stored)
        self._rules.update({name: PatchProcessor(settings) for name, settings in _PUBLISHED.items()})

    def sizes(self, width: int, height: int) -> dict[str, ImageSize]:
        """Sizes by rule, that of the run first.

        Args:
            width: of the stored picture, in pixels.
            height: of the stored picture, in pixels.
        """
        return {name: rule.image_size(width, height) for name, rule in self._rules.items()}
