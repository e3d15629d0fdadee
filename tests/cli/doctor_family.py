"""A family that declares the wrong box convention for the lab's models."""

from __future__ import annotations

from kvg.backbones.families.qwen2_vl import Qwen2VL
from kvg.text.box_codec import AbsoluteCodec, BoxCodec


class PixelQwen2VL(Qwen2VL):
    """Qwen2-VL whose boxes are declared in pixels of the resized picture."""

    @property
    def codec(self) -> BoxCodec:
        return AbsoluteCodec()
