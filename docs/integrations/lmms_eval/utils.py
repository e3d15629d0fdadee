"""KVG-Bench for lmms-eval. Questions and verdicts come from the package ``kvg``, which has to be installed.

A row of ``kvg-bench.parquet`` has ``question_id``, ``category``, ``question``, ``answer`` and ``image`` (bytes).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from PIL import Image

from kvg.backbones.picture_processor import PatchProcessor
from kvg.backbones.picture_settings import PatchSettings
from kvg.benchmark import split_of
from kvg.evaluation.records.scoring import score
from kvg.formats.written_boxes import written_boxes
from kvg.pictures import picture_size, read_rgb
from kvg.text.prompts import PromptFormat, prompt
from kvg.text.question_names import name_in_question

# Only for `kvg_bench_absolute`: the model's arguments min_pixels and max_pixels; these are the defaults of lmms-eval.
MIN_PIXELS = int(os.environ.get("KVG_MIN_PIXELS", 256 * 28 * 28))
MAX_PIXELS = int(os.environ.get("KVG_MAX_PIXELS", 2048 * 28 * 28))

Doc = Mapping[str, Any]
Verdict = dict[str, Any]


def doc_to_visual(doc: Doc) -> list[Image.Image]:
    """Returns the picture."""
    return [read_rgb(doc["image"]["bytes"], doc["question_id"])]


def doc_to_text(doc: Doc, lmms_eval_specific_kwargs: Mapping[str, Any] | None = None) -> str:
    """Returns the question in the prompt template ``mode``, without marks around the name."""
    mode = (lmms_eval_specific_kwargs or {}).get("mode", "qwen")
    return prompt(name_in_question(doc["question"], doc["answer"]), mode, PromptFormat())


def score_relative(doc: Doc, results: Sequence[str]) -> dict[str, Verdict]:
    """Scores boxes on the 0-1000 grid."""
    return _scored(doc, results[0], {"codec": "relative"})


def score_pixels(doc: Doc, results: Sequence[str]) -> dict[str, Verdict]:
    """Scores boxes in pixels of the picture in the file."""
    width, height = _size(doc)
    return _scored(doc, results[0], {"codec": "absolute", "size": [width, height, width, height]})


def score_absolute(doc: Doc, results: Sequence[str]) -> dict[str, Verdict]:
    """Scores boxes in pixels of the picture as Qwen2.5-VL resizes it."""
    size = PatchProcessor(PatchSettings(MIN_PIXELS, MAX_PIXELS)).image_size(*_size(doc))
    sides = [size.width, size.height, size.resized_width, size.resized_height]
    return _scored(doc, results[0], {"codec": "absolute", "size": sides})


def accuracy(verdicts: Iterable[Verdict]) -> float:
    """Acc@0.5 of all questions."""
    return _mean(float(verdict["correct"]) for verdict in verdicts)


def accuracy_seen(verdicts: Iterable[Verdict]) -> float:
    """Acc@0.5 of the seen categories."""
    return accuracy(verdict for verdict in verdicts if verdict["split"] == "seen")


def accuracy_unseen(verdicts: Iterable[Verdict]) -> float:
    """Acc@0.5 of the unseen categories."""
    return accuracy(verdict for verdict in verdicts if verdict["split"] == "unseen")


def mean_iou(verdicts: Iterable[Verdict]) -> float:
    """Mean IoU; an answer without a box has IoU 0."""
    return _mean(verdict["iou"] for verdict in verdicts)


def unparsed(verdicts: Iterable[Verdict]) -> float:
    """Share of answers without a box."""
    return _mean(float(verdict["unparsed"]) for verdict in verdicts)


def _scored(doc: Doc, answer: str, convention: Mapping[str, Any]) -> dict[str, Verdict]:
    truths = [list(box.numbers) for box in written_boxes(doc["answer"])]
    where = str(doc["question_id"])
    result = score({"answer": answer, "gt_bbox": truths, **convention}, where)
    verdict = {"iou": result.iou, "correct": result.correct, "unparsed": result.box is None}
    verdict |= {"question_id": where, "category": doc["category"], "split": split_of(doc["category"])}
    names = ("kvg_acc", "kvg_acc_seen", "kvg_acc_unseen", "kvg_mean_iou", "kvg_unparsed")
    return dict.fromkeys(names, verdict)


def _size(doc: Doc) -> tuple[int, int]:
    return picture_size(doc["image"]["bytes"], str(doc["question_id"]))


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else float("nan")
