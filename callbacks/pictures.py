"""Pictures for TensorBoard: where the entity is, where the model says it is, and why."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image, ImageDraw

from kvg.types import Box, Sample

TRUTH, ANSWER = (0, 158, 115), (213, 94, 0)  # green and vermilion, which colour-blind eyes tell apart
MIN_SIDE = 280  # smaller pictures are enlarged, as TensorBoard shows them pixel by pixel


class BoxPictures(Callback):
    """Shows the first cases of each validation and test: truth in green, the answer in vermilion, and the completion.

    The module's ``validation_step`` returns one record per sample, with ``text`` and ``box_px``. Under the same tag,
    TensorBoard's slider goes through the validations.

    Args:
        num: cases per loader.
    """

    def __init__(self, num: int = 8) -> None:
        self.num = num
        self._num_shown: dict[int, int] = {}

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts anew."""
        self._num_shown = {}

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts anew."""
        self._num_shown = {}

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draws while there is something left to draw."""
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
        """Draws while there is something left to draw."""
        self._show(trainer, "test", outputs, batch, dataloader_idx)

    def _show(self, trainer: L.Trainer, stage: str, outputs: Any, batch: Any, loader: int) -> None:
        boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if trainer.sanity_checking or not trainer.is_global_zero or not boards or not outputs:
            return
        shown = self._num_shown.get(loader, 0)
        cases = list(zip(batch["samples"], outputs, strict=True))[: max(0, self.num - shown)]
        for number, (sample, record) in enumerate(cases, start=shown):
            tag = f"{stage}/{loader}/{number}"
            for board in boards:
                board.experiment.add_image(tag, draw(sample, record["box_px"]), trainer.global_step, dataformats="HWC")
                board.experiment.add_text(tag, caption(sample, record), trainer.global_step)
        self._num_shown[loader] = shown + len(cases)


def draw(sample: Sample, answer: Box | None) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The picture with both boxes.

    Args:
        sample: the case; its box is the truth.
        answer: in pixels of the stored picture; None where the model gave none.

    Returns:
        ``[H, W, 3]`` uint8; the shorter side at least 280 px.
    """
    image = Image.open(io.BytesIO(sample.image)).convert("RGB")
    scale = max(1, -(-MIN_SIDE // min(image.size)))
    image = image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for box, colour in ((sample.box_px, TRUTH), (answer, ANSWER)):
        if box is not None:
            x1, y1, x2, y2 = (scale * value for value in box)
            corners = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))  # a model may mix up corners
            pen.rectangle(corners, outline=colour, width=max(2, min(image.size) // 120))
    return np.asarray(image)


def caption(sample: Sample, record: Mapping[str, Any]) -> str:
    """What was asked, what was answered, and how near it was, as Markdown."""
    iou = f", IoU {record['iou']:.2f}" if record.get("iou") is not None else ""
    verdict = "no box" if record["box_px"] is None else "box (" + ", ".join(f"{v:.0f}" for v in record["box_px"]) + ")"
    truth = ", ".join(f"{v:.0f}" for v in sample.box_px)
    group = ", ".join(word for word in (sample.category, sample.split, sample.knowledge) if word)
    text = record["text"].replace("`", "'")
    return f"**{sample.entity}** ({group}): {verdict}, truth ({truth}){iou}\n\n```\n{text}\n```"
