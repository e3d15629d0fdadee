"""Reads boxes of answers, in pixels of the stored picture, for any kind of client."""

from __future__ import annotations

from kvg.backbones.picture_processor import PatchProcessor
from kvg.backbones.picture_settings import PatchSettings
from kvg.errors import ConfigError
from kvg.inference.local import LocalClient
from kvg.inference.request import Client
from kvg.text.box_codec import AbsoluteCodec, BoxCodec, ImageSize, RelativeCodec
from kvg.text.completion import parse_completion
from kvg.types import Box, Sample


class BoxReader:
    """Reads the box of an answer, in pixels of the stored picture.

    Args:
        client: the client. A model in this process has its own codec and picture sizes.
        codec: ``relative``, ``json`` or ``absolute``; None for the model's own, or ``relative``.
        min_pixels: minimum area to which a server's model enlarges pictures, for absolute boxes.
        max_pixels: maximum area to which it shrinks them.

    Raises:
        ConfigError: boxes are absolute, and the size of pictures is unknown.
    """

    def __init__(
        self, client: Client, codec: str | None = None, min_pixels: int = 56 * 56, max_pixels: int | None = None
    ) -> None:
        self.model = client if isinstance(client, LocalClient) else None
        self.codec, self.min_pixels, self.max_pixels = codec, min_pixels, max_pixels
        if codec == "absolute" and self.model is None and not max_pixels:
            remedy = "is needed for absolute boxes; give the value of the server's model"
            raise ConfigError("filter.max_pixels", remedy)

    def __call__(self, text: str, sample: Sample) -> Box | None:
        """Returns the box of an answer; None if it has none."""
        return self._codec().decode(parse_completion(text).answer, self._size(sample.width, sample.height))

    def _codec(self) -> BoxCodec:
        if self.codec is None:
            return self.model.backbone.codec if self.model else RelativeCodec()
        return AbsoluteCodec() if self.codec == "absolute" else RelativeCodec(as_json=self.codec == "json")

    def _size(self, width: int, height: int) -> ImageSize:
        if self.model:
            return self.model.backbone.processor.image_size(width, height)
        if self.codec != "absolute":
            return ImageSize(width, height, width, height)
        # Qwen2.5-VL writes absolute boxes, and its patch sizes are the defaults.
        settings = PatchSettings(self.min_pixels, self.max_pixels or PatchSettings.max_pixels)
        return PatchProcessor(settings).image_size(width, height)
