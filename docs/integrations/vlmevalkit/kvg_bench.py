"""KVG-Bench for VLMEvalKit: makes its TSV, and runs VLMEvalKit with the data set added.

    python kvg_bench.py --bench kvg-bench.parquet          # writes KVG-Bench.tsv to VLMEvalKit's data folder
    python kvg_bench.py --data KVG-Bench_relative --model Qwen3-VL-8B-Instruct --mode all   # as run.py

The unit of the model's boxes is part of the data set's name. The package ``kvg`` has to be installed.
"""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import vlmeval.dataset as datasets
from vlmeval.dataset.image_base import ImageBaseDataset
from vlmeval.smp import LMUDataRoot, dump, load
from vlmeval.smp.file import get_intermediate_file_path

from kvg.backbones.picture_processor import PatchProcessor
from kvg.backbones.picture_settings import PatchSettings
from kvg.benchmark import split_of
from kvg.evaluation.records.scoring import Score, score
from kvg.formats.kvg_bench import key_of
from kvg.formats.written_boxes import written_boxes
from kvg.pictures import picture_size
from kvg.text.prompts import PromptFormat, prompt
from kvg.text.question_names import name_in_question

FILE = "KVG-Bench.tsv"
UNITS = ("relative", "absolute", "pixels")
# Only for `KVG-Bench_absolute`: the arguments of the model in vlmeval/config.py; these are those of Qwen2.5-VL there.
MIN_PIXELS = int(os.environ.get("KVG_MIN_PIXELS", 1280 * 28 * 28))
MAX_PIXELS = int(os.environ.get("KVG_MAX_PIXELS", 16384 * 28 * 28))


class KVGBench(ImageBaseDataset):
    """KVG-Bench. ``relative``: 0-1000; ``absolute``: pixels as Qwen2.5-VL resizes; ``pixels``: of the file."""

    TYPE = "GROUNDING"

    @classmethod
    def supported_datasets(cls) -> list[str]:
        """Returns the names of the data sets, one for each unit."""
        return [f"KVG-Bench_{unit}" for unit in UNITS]

    def load_data(self, dataset: str) -> pd.DataFrame:
        """Reads the TSV.

        Raises:
            FileNotFoundError: it has not been made yet.
        """
        path = Path(LMUDataRoot()) / FILE
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; run `python {Path(__file__).name} --bench kvg-bench.parquet`")
        self.unit = dataset.rpartition("_")[2]
        return load(str(path))

    def evaluate(self, eval_file: str, **judge_kwargs: Any) -> pd.DataFrame:
        """Scores the predictions; returns Acc@0.5 and the share of answers without a box, in %, and the mean IoU."""
        rows = {str(row["index"]): row for row in self.data.to_dict("records")}
        predictions = load(eval_file)
        scores = [
            self._score(rows[str(index)], str(answer))
            for index, answer in zip(predictions["index"], predictions["prediction"], strict=True)
        ]
        splits = [split_of(rows[str(index)]["category"]) for index in predictions["index"]]
        predictions["iou"] = [result.iou for result in scores]
        predictions["hit"] = [int(result.correct) for result in scores]
        dump(predictions, get_intermediate_file_path(eval_file, "_detail"))
        table = pd.DataFrame([_row(name, scores, splits) for name in ("all", "seen", "unseen")])
        dump(table, get_intermediate_file_path(eval_file, "_acc", "csv"))
        return table

    def _score(self, row: Mapping[str, Any], answer: str) -> Score:
        truths = [list(box.numbers) for box in written_boxes(row["answer"])]
        record: dict[str, Any] = {"answer": answer, "gt_bbox": truths, "codec": "relative"}
        if self.unit != "relative":
            width, height = int(row["width"]), int(row["height"])
            sides = [width, height, width, height]
            if self.unit == "absolute":
                size = PatchProcessor(PatchSettings(MIN_PIXELS, MAX_PIXELS)).image_size(width, height)
                sides[2:] = size.resized_width, size.resized_height
            record |= {"codec": "absolute", "size": sides}
        return score(record, str(row["index"]))


def make_tsv(bench: str, mode: str = "qwen") -> Path:
    """Writes the TSV to VLMEvalKit's data folder.

    Args:
        bench: ``kvg-bench.parquet``.
        mode: prompt template of the questions.

    Returns:
        The path of the TSV.
    """
    rows = []
    for row in pq.read_table(bench).to_pylist():
        image = row["image"]["bytes"] if isinstance(row["image"], dict) else row["image"]
        width, height = picture_size(image, row["question_id"])
        name = name_in_question(row["question"], row["answer"])
        entry = {"index": key_of(row["question_id"]), "category": row["category"], "entity": name}
        entry |= {"question": prompt(name, mode, PromptFormat()), "answer": row["answer"], "width": width}
        rows.append({**entry, "height": height, "image": base64.b64encode(image).decode("ascii")})
    path = Path(LMUDataRoot()) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path, sep="\t", index=False)
    return path


def _row(name: str, scores: list[Score], splits: list[str]) -> dict[str, Any]:
    chosen = [result for result, split in zip(scores, splits, strict=True) if name in ("all", split)]
    num = len(chosen)
    correct, unparsed = sum(result.correct for result in chosen), sum(result.box is None for result in chosen)
    row = {"split": name, "n": num, "Acc@0.5": 100 * correct / num if num else float("nan")}
    row["mean IoU"] = sum(result.iou for result in chosen) / num if num else float("nan")
    return row | {"unparsed": 100 * unparsed / num if num else float("nan")}


def register() -> None:
    """Adds the data set to those of VLMEvalKit, which looks names up in this list."""
    if KVGBench not in datasets.DATASET_CLASSES:
        datasets.DATASET_CLASSES.insert(0, KVGBench)


if __name__ == "__main__":
    if "--bench" in sys.argv:
        print(make_tsv(sys.argv[sys.argv.index("--bench") + 1]))
    else:
        register()
        import runpy

        runpy.run_module("vlmeval.run", run_name="__main__")
