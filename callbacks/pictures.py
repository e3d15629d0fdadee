"""Logs pictures with the true and the predicted box, and the completion, to TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image, ImageDraw

from kvg.pictures import read_rgb
from kvg.ranges import check_whole
from kvg.text.box_codec import from_norm
from kvg.types import Box, Sample

TRUTH, ANSWER = (0, 158, 115), (213, 94, 0)  # green and vermilion: distinguishable for colour-blind readers
MIN_SIDE = 280  # smaller pictures are enlarged, because TensorBoard does not scale them


class BoxPictures(Callback):
    """Logs the first cases of each validation and test: true box in green, predicted box in vermilion, completion.

    The module's steps return one line per sample (``kvg.evaluation.records.prediction``), and the batch holds the
    ``samples``. Tags stay the same, so that TensorBoard's slider moves through the validations.

    Args:
        num: number of cases per set.
    """

    def __init__(self, num: int = 8) -> None:
        check_whole("callbacks.BoxPictures.num", num, 0)
        self.num = num
        self._num_logged: dict[str, int] = {}

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Resets the counts."""
        self._num_logged = {}

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Resets the counts."""
        self._num_logged = {}

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Logs cases until ``num`` are logged."""
        self._show(trainer, "val", outputs, batch, dataloader_idx)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Logs cases until ``num`` are logged."""
        self._show(trainer, "test", outputs, batch, dataloader_idx)

    def _show(self, trainer: L.Trainer, stage: str, outputs: Any, batch: Any, loader: int) -> None:
        boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if trainer.sanity_checking or not trainer.is_global_zero or not boards or not outputs:
            return
        name = outputs[0].get("set") or str(loader)
        num_before = self._num_logged.get(name, 0)
        samples = batch["samples"] if isinstance(batch, Mapping) else batch.samples
        cases = list(zip(samples, outputs, strict=True))[: max(0, self.num - num_before)]
        for number, (sample, line) in enumerate(cases, start=num_before):
            tag = f"{stage}/{name}/{number}"
            for board in boards:
                board.experiment.add_image(tag, draw(sample, line.get("box")), trainer.global_step, dataformats="HWC")
                board.experiment.add_text(tag, caption(sample, line), trainer.global_step)
        self._num_logged[name] = num_before + len(cases)


def draw(sample: Sample, answer: Box | None) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The picture with both boxes.

    Args:
        sample: the case; its box is the truth.
        answer: predicted box on the 0-1000 grid; None for an unparsed answer.

    Returns:
        ``[H, W, 3]`` uint8; the shorter side at least 280 px.
    """
    image = read_rgb(sample.image, sample.key)
    scale = max(1, -(-MIN_SIDE // min(image.size)))
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    truth = sample.box_px if sample.has_box else None
    for box, colour in ((truth, TRUTH), (_in_pixels(answer, sample), ANSWER)):
        if box is not None:
            x1, y1, x2, y2 = (scale * value for value in box)
            corners = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))  # a model may swap corners
            pen.rectangle(corners, outline=colour, width=max(2, min(image.size) // 120))
    return np.asarray(image)


def caption(sample: Sample, line: Mapping[str, Any]) -> str:
    """The question, the answer and its IoU, as Markdown."""
    group = ", ".join(word for word in (sample.category, sample.split, sample.knowledge) if word)
    text = line["answer"].replace("`", "'")
    return f"**{sample.entity}** ({group}): {_verdict(sample, line)}\n\n```\n{text}\n```"


def _verdict(sample: Sample, line: Mapping[str, Any]) -> str:
    if "options" in line:
        chosen = line["options"][line["chosen"]] if line["chosen"] is not None else "nothing"
        return f"{chosen} was chosen of {', '.join(line['options'])}"
    box, truth = _in_pixels(line["box"], sample), _numbers(sample.box_px) if sample.has_box else "not known"
    return f"no box, truth {truth}" if box is None else f"box {_numbers(box)}, truth {truth}, IoU {line['iou']:.2f}"


def _numbers(box: Box) -> str:
    return f"({', '.join(f'{value:.0f}' for value in box)})"


def _in_pixels(box: Box | None, sample: Sample) -> Box | None:
    """A box on the 0-1000 grid in pixels of the stored picture."""
    return None if box is None else from_norm(box, sample.width, sample.height)
