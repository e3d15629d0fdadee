"""Question by question: ``kvg test`` and ``kvg predict``, in any number of processes, and on from where they were."""

from __future__ import annotations

import dataclasses
import logging
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from kvg.backbones.answers import plain_texts
from kvg.backbones.backbone import Backbone
from kvg.backbones.fingerprint import fingerprint, saved_fingerprint
from kvg.batches import Batch
from kvg.errors import ConfigError, DataError, TrainingError
from kvg.evaluation.figures.summary import summary
from kvg.evaluation.records.prediction import read_cases
from kvg.evaluation.records.prediction_files import Predictions
from kvg.evaluation.records.question import Question
from kvg.evaluation.records.question_sets import QuestionBatches
from kvg.modules.evaluation import EvaluatedModule
from kvg.modules.guard import SharedFault
from kvg.modules.precision import check_precision, with_float32_numbers
from kvg.rl.rollout import rollout

log = logging.getLogger(__name__)


class QuestionedModule(EvaluatedModule):
    """Answers the batches of ``kvg.evaluation.records.question_sets.QuestionBatches`` in a test or a prediction.

    Processes take turns with them, what has been answered is kept, and a further start goes on from there; the lines,
    and with them the figures, are the same whatever the number of processes.

    Args:
        backbone: the model.
        max_new_tokens: longest answer; in the mode ``describe`` of each turn.
    """

    def __init__(self, backbone: Backbone, max_new_tokens: int) -> None:
        super().__init__(backbone, max_new_tokens)
        self._predictions: Predictions | None = None
        self._batches: QuestionBatches | None = None
        self._trained_since = 0.0  # these weights are in no file
        self._sigterm: Any = None

    def on_train_start(self) -> None:
        """From here on the weights are in no file."""
        self._trained_since = time.time()

    def setup(self, stage: str) -> None:
        """Checks the precision; notes who wants to know of the end, before Lightning takes the signal."""
        check_precision(self.trainer.precision, training=stage == "fit")
        self._sigterm = signal.getsignal(signal.SIGTERM)

    def begin_answers(self, batches: QuestionBatches, mode: str) -> list[int]:
        """Takes on an evaluation; called by the data module, when the weights are those that will answer.

        Args:
            batches: all questions.
            mode: in which they are asked.

        Returns:
            Numbers of the batches that have no answers yet.
        """
        saved = self.trainer.ckpt_path
        origin = {
            "sets": {one.name: one.path for one in batches.sets},
            "checkpoint": self.backbone.checkpoint,
            "ckpt_path": str(saved) if saved else None,
        }
        settings = {**batches.settings(), **self._settings(), "mode": mode}
        # Files may look different from another node, so what the first process sees is what counts.
        settings = self.trainer.strategy.broadcast(settings)
        self._batches, self._fault = batches, SharedFault()
        self._predictions = found = Predictions(
            Path(self.trainer.default_root_dir), settings, list(batches.sizes), origin
        )
        finished, missing = self.trainer.strategy.broadcast((found.finished, found.missing()))
        total = sum(batches.sizes)
        if finished:
            left_out = f" ({found.num_bad} left out as they cannot be used)" if found.num_bad else ""
            rank_zero_info("%s holds all %d answers%s; nothing is asked again.", found.path, total, left_out)
        elif len(missing) < len(batches.sizes):
            left = sum(batches.sizes[number] for number in missing)
            rank_zero_info("%d of %d answers are there from before.", total - left, total)
        elif found.path.is_file():
            rank_zero_info("%s is of other settings, and will be replaced when all is answered.", found.path)
        todo: list[int] = missing
        return todo

    def _settings(self) -> dict[str, Any]:
        """What the answers depend on, as far as it lies here."""
        backbone, saved = self.backbone, self.trainer.ckpt_path
        processor = backbone.processor
        return {
            "backbone": backbone.family.model_type,
            "checkpoint": fingerprint(backbone.checkpoint) or backbone.checkpoint,
            "ckpt_path": saved_fingerprint(str(saved)) if saved else None,
            "lora": dataclasses.asdict(backbone.lora) if backbone.lora else None,
            "trained_since": self._trained_since or None,
            "dtype": str(next(backbone.parameters()).dtype),
            "precision": str(self.trainer.precision),
            "pixels": [processor.min_pixels, processor.max_pixels],
            "max_new_tokens": self.sampling.max_new_tokens,
        }

    def _answer_questions(self, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
        if batch["number"] is None:  # all is answered, and Lightning wants a batch
            return []
        if not isinstance(self._fault.error, TrainingError):  # otherwise what is left would be answered no better
            with self._fault.kept(self._ends_at_once):
                return self._answered(batch)
        return []

    def _answered(self, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
        start = time.perf_counter()
        refused = not batch["skip_bad"] and any(batch["faults"])
        if refused:
            self._refuse(next(fault for fault in batch["faults"] if fault))
        questions: Sequence[Question] = batch["questions"]
        descriptions: list[str | None] = [None] * len(questions)
        if batch["describes"]:
            first_turn = rollout(self.backbone, batch["inputs"], self.sampling)
            descriptions = list(plain_texts(self.backbone, first_turn))
            inputs = self._further_turn(batch, [text or "" for text in descriptions])
        else:
            inputs = batch["inputs"]
        said = self.answer(inputs)
        if refused or not batch["due"]:  # answered only so that a sharded model is gathered here, too
            return []
        told = zip(questions, said, descriptions, strict=False)  # where all pictures are bad, a blank one was shown
        lines = [self._line(question, one, batch["mode"], text) for question, one, text in told]
        seconds = (time.perf_counter() - start) / len(batch["faults"])
        good = iter(lines)
        records = [{"line": next(good)} if fault is None else {"fault": str(fault)} for fault in batch["faults"]]
        self._running().files.save(batch["number"], [{**record, "seconds": seconds} for record in records])
        return lines

    def _refuse(self, fault: DataError) -> None:
        """Ends the run; where there are other processes, at its end, as they would wait for this one in vain."""
        remedy = f"{fault.remedy} (all other answers are kept; data.skip_bad: true leaves such questions out)"
        self._fault.error = self._fault.error or DataError(fault.where, fault.field, remedy)
        if self.trainer.world_size == 1:
            raise self._fault.error
        log.error("%s", fault)

    def _further_turn(self, batch: Mapping[str, Any], descriptions: Sequence[str]) -> Batch:
        processor = self.backbone.processor
        examples = []
        for number, example in enumerate(batch["examples"]):
            if number < len(batch["questions"]):
                question: Question = batch["questions"][number]
                asked, then = question.turns(batch["mode"], processor.prompt_format)
                turns = [asked, descriptions[number], then]
                example = processor.encode_chat(question.sample.key, example.pictures, turns)
            examples.append(example)
        return processor.collate(examples, batch["samples"], pad_left=True).to(self.device)

    def _take_back_sigterm(self) -> None:
        """Lightning's handler waits for the end of the run; all that counts is on disk, so it may end at once."""
        if self._sigterm is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._sigterm)

    def on_test_start(self) -> None:
        """See ``_take_back_sigterm``."""
        self._take_back_sigterm()

    def on_predict_start(self) -> None:
        """See ``_take_back_sigterm``."""
        self._take_back_sigterm()

    @with_float32_numbers
    def test_step(  # type: ignore[override]  # Lightning hands on to callbacks whatever it gets
        self, batch: Mapping[str, Any], batch_idx: int, dataloader_idx: int = 0
    ) -> list[dict[str, Any]]:
        """Answers a batch and keeps the answers; one line per case, for callbacks to show."""
        return self._answer_questions(batch)

    @with_float32_numbers
    def predict_step(self, batch: Mapping[str, Any], batch_idx: int, dataloader_idx: int = 0) -> list[dict[str, Any]]:
        """Answers a batch and keeps the answers; one line per case."""
        return self._answer_questions(batch)

    def _finish(self) -> bool:
        """Writes ``predictions.jsonl``, a line per case, into the run's folder; whether all was answered."""
        found, batches = self._running(), self._batches
        self.trainer.strategy.barrier("answered")
        self._fault.end(self.trainer.world_size)
        whole = not self.trainer.is_global_zero or not found.missing()
        if self.trainer.is_global_zero and batches is not None and whole:
            if found.finished:
                found.clear()
            else:
                bad = [problem for one in batches.sets for problem in one.problems]
                told = found.write(sum(one.num_bad for one in batches.sets), bad)
                left_out = f", {told['num_bad']} left out as they cannot be used" if told["num_bad"] else ""
                rank_zero_info("%s: %d answers%s", found.path, told["num_cases"], left_out)
        whole = bool(self.trainer.strategy.broadcast(whole))
        if not whole:
            rank_zero_warn("some questions have no answer yet (limit_test_batches?); the same command goes on there")
        return whole

    def on_predict_epoch_end(self) -> None:
        """Writes ``predictions.jsonl``."""
        self._finish()

    def on_test_epoch_end(self) -> None:
        """Writes ``predictions.jsonl``; logs ``test/iou_acc`` and its groups, from the lines of all processes."""
        if not self._finish():
            return
        for name, value in summary(read_cases(self._running().path)).items():
            self.log(f"test/{name}", torch.tensor(value), sync_dist=False)

    def _running(self) -> Predictions:
        if self._predictions is None:
            raise ConfigError("data", "asks no questions; use data_modules.EvaluationDataModule for test and predict")
        return self._predictions
