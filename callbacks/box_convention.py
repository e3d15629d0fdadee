"""Warns at the start of a run if its answers are boxes in another convention than the declared one."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from kvg.evaluation.diagnostics.box_convention import FEWEST, BoxAnswer, convention_fits
from kvg.ranges import check_whole
from kvg.text.box_codec import last_numbers
from kvg.text.completion import parse_completion
from kvg.types import Sample

_RULE = "as in this run"


class BoxConvention(Callback):
    """Reads the first answers of a run under every box convention, once, and warns if another one fits clearly better.

    The answers are there anyway: the rollouts of stage 2, and those of the first validation, which is at the start with
    ``trainer.num_sanity_val_steps``. Only the first process looks. ``kvg doctor`` does the same before a run, with more
    rules of resizing and a page.

    Args:
        num: number of pictures whose answers are read.

    Raises:
        ConfigError: ``num`` is too small.
    """

    def __init__(self, num: int = 20) -> None:
        check_whole("callbacks.BoxConvention.num", num, FEWEST)
        self.num = num
        self.answers: dict[str, BoxAnswer] = {}  # by checksum of the picture
        self.is_done = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A resumed run was looked at when it started."""
        self.is_done = self.is_done or bool(trainer.ckpt_path) or not trainer.is_global_zero

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Takes the first rollout of each prompt, in stage 2."""
        scored = getattr(pl_module, "scored", None)
        if scored is not None and not self.is_done:
            texts = [answer.completion.text for answer in scored.answers[:: scored.group_size]]
            self._add(pl_module, zip(scored.samples, texts, strict=True))

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Takes the answers of a validation."""
        if outputs and not self.is_done and trainer.state.fn == "fit":
            lines: Iterable[Mapping[str, Any]] = outputs
            self._add(pl_module, zip(batch.samples, (str(line["answer"]) for line in lines), strict=True))

    def _add(self, pl_module: Any, answers: Iterable[tuple[Sample, str]]) -> None:
        """Adds answers, and looks at them when there are enough."""
        backbone = pl_module.backbone
        for sample, text in answers:
            mark = hashlib.sha256(sample.image).hexdigest()
            if len(self.answers) >= self.num or mark in self.answers or not sample.has_box:
                continue
            size = backbone.processor.image_size(sample.width, sample.height)
            answer = parse_completion(text).answer
            last = last_numbers(answer)
            self.answers[mark] = BoxAnswer(
                numbers=None if last is None else last[0],
                declared_px=backbone.codec.decode(answer, size),
                objects_px=[item.box_px for item in sample.objects],
                target=sample.target,
                sizes={_RULE: size},
            )
        if len(self.answers) >= self.num:
            self._conclude(backbone.codec.name)

    def _conclude(self, declared: str) -> None:
        self.is_done = True
        fits = convention_fits(list(self.answers.values()), declared)
        self.answers.clear()
        if fits.is_wrong:
            warnings.warn(f"{fits.text()}; `kvg doctor` with the settings of this run shows them", stacklevel=2)
