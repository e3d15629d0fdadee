"""All exchange formats by name. A new format is added here, see docs/how-to/add_a_format.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kvg.formats.exchange.base import ExchangeFormat
from kvg.formats.exchange.coco import CocoFormat
from kvg.formats.exchange.fiftyone import FiftyOneFormat
from kvg.formats.exchange.jsonl import FlorenceJSONL, PaliGemmaJSONL, Qwen3JSONL, Qwen25JSONL
from kvg.formats.exchange.label_studio import LabelStudioFormat
from kvg.formats.exchange.listing import ListingFormat
from kvg.formats.exchange.yolo import YoloFormat

FORMATS: Final[Mapping[str, ExchangeFormat]] = {
    one.name: one
    for one in (
        CocoFormat(),
        YoloFormat(),
        LabelStudioFormat(),
        FiftyOneFormat(),
        PaliGemmaJSONL(),
        FlorenceJSONL(),
        Qwen25JSONL(),
        Qwen3JSONL(),
        ListingFormat(),
    )
}
