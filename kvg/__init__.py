"""KVG: models that find a thing by its name when the name takes knowledge (arXiv 2503.12797).

The names of ``__all__`` are public: they stay, or the changelog says so. Each is imported on first use, so
``import kvg`` loads nothing. ``docs/how-to/use_from_python.md`` has an example of each.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvg.boxes import iou as iou
    from kvg.composites.compositor import Compositor as Compositor
    from kvg.evaluation.figures.summary import summary as summary
    from kvg.evaluation.records.prediction import Prediction as Prediction
    from kvg.evaluation.records.prediction import read_predictions as read_predictions
    from kvg.formats.stores import open_store as open_store
    from kvg.lab.world import LabSource as LabSource
    from kvg.lab.world import lab_canvas as lab_canvas
    from kvg.metrics.iou_accuracy import GroupedIoUAccuracy as GroupedIoUAccuracy
    from kvg.metrics.iou_accuracy import IoUAccuracy as IoUAccuracy
    from kvg.pipeline.grounder import Grounder as Grounder
    from kvg.pipeline.grounding import Grounding as Grounding
    from kvg.pipeline.report import ReportSettings as ReportSettings
    from kvg.pipeline.report import build_report as build_report
    from kvg.pipeline.report import write_report as write_report
    from kvg.rewards.combine import WeightedReward as WeightedReward
    from kvg.rewards.format import FormatReward as FormatReward
    from kvg.rewards.iou import IoUReward as IoUReward
    from kvg.text.answer import read_answer as read_answer
    from kvg.types import Completion as Completion
    from kvg.types import Sample as Sample

_MODULES = {
    "Completion": "kvg.types",
    "Compositor": "kvg.composites.compositor",
    "FormatReward": "kvg.rewards.format",
    "Grounder": "kvg.pipeline.grounder",
    "Grounding": "kvg.pipeline.grounding",
    "GroupedIoUAccuracy": "kvg.metrics.iou_accuracy",
    "IoUAccuracy": "kvg.metrics.iou_accuracy",
    "IoUReward": "kvg.rewards.iou",
    "LabSource": "kvg.lab.world",
    "Prediction": "kvg.evaluation.records.prediction",
    "ReportSettings": "kvg.pipeline.report",
    "Sample": "kvg.types",
    "WeightedReward": "kvg.rewards.combine",
    "build_report": "kvg.pipeline.report",
    "iou": "kvg.boxes",
    "lab_canvas": "kvg.lab.world",
    "open_store": "kvg.formats.stores",
    "read_answer": "kvg.text.answer",
    "read_predictions": "kvg.evaluation.records.prediction",
    "summary": "kvg.evaluation.figures.summary",
    "write_report": "kvg.pipeline.report",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    """Imports a public name on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module 'kvg' has no attribute '{name}'; its names are {', '.join(__all__)}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value  # the next use does not come here
    return value


def __dir__() -> list[str]:
    """Public names, and what is loaded."""
    return sorted({*globals(), *__all__})
