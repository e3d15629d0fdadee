"""``kvg test`` and ``kvg predict``: answers every question once, in any number of processes, resumable."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from kvg.errors import ConfigError
from kvg.evaluation.diagnostics.intervention import in_one_line, moves
from kvg.evaluation.figures.summary import summary
from kvg.evaluation.records.prediction import read_predictions
from kvg.evaluation.records.prediction_files import Predictions
from kvg.evaluation.records.question_sets import QuestionBatches
from kvg.inference.batch_runner import BatchRunner, Engine, Record, RequestJob
from kvg.inference.prepared import PreparedBatch
from kvg.inference.questions import QuestionRequest, QuestionRequests
from kvg.inference.request import Answers, Request
from kvg.text.box_codec import BoxCodec, ImageSize
from kvg.text.prompts import PromptFormat
from kvg.types import Completion

_REMEDY = "all other answers are kept; data.skip_bad: true skips such questions"


class PredictionEngine(Engine, Protocol):
    """An engine with the settings for parsing its answers, and the settings that determine them."""

    @property
    def codec(self) -> BoxCodec:
        """The box convention of the answers."""

    @property
    def takes_starts(self) -> bool:
        """Whether it continues given starts of answers."""

    @property
    def prompt_format(self) -> PromptFormat:
        """Marks around names in a question."""

    def image_size(self, width: int, height: int) -> ImageSize:
        """Both sizes of a picture: as stored, and as the model sees it."""

    def settings(self, trainer: L.Trainer) -> dict[str, Any]:
        """The settings that determine the answers, as JSON data."""

    def origin(self, trainer: L.Trainer) -> dict[str, Any]:
        """Path or address of the model as metadata; it does not affect the answers."""

    def summary(self) -> str:
        """Usage in one line; '' for none."""


class PredictionRunner(BatchRunner):
    """Writes ``predictions.jsonl``. The lines do not depend on the number of processes, nor on interruptions.

    Args:
        engine: that answers.
    """

    engine: PredictionEngine

    def __init__(self, engine: PredictionEngine) -> None:
        super().__init__(engine)
        self._questions: QuestionBatches | None = None
        self._predictions: Predictions | None = None
        self._mode = ""
        self._trained_since = 0.0  # start of training; from then on the weights are in no file

    def loader(self, questions: QuestionBatches, mode: str, num_workers: int, skip_bad: bool) -> Iterable[Any]:
        """The unanswered questions of this process; the weights must be loaded already.

        Args:
            questions: all questions.
            mode: prompt mode.
            num_workers: processes that prepare batches.
            skip_bad: skip and count unusable questions; otherwise they are an error.
        """
        if questions.forced and not self.engine.takes_starts:
            raise ConfigError("data.intervene", "needs a model in this process; a server begins its own answers")
        settings = {
            **questions.settings(),
            **self.engine.settings(self.trainer),
            "trained_since": self._trained_since or None,
            "mode": mode,
        }
        # The file system may differ between nodes, so all processes use the settings of the first one.
        settings = self.trainer.strategy.broadcast(settings)
        origin = {"sets": {one.name: one.path for one in questions.sets}, **self.engine.origin(self.trainer)}
        predictions = Predictions(Path(self.trainer.default_root_dir), settings, list(questions.sizes), origin)
        self._questions, self._predictions, self._mode = questions, predictions, mode
        finished, missing = self.trainer.strategy.broadcast((predictions.finished, predictions.missing()))
        self._say_what_is_left(predictions, questions.sizes, finished, missing)
        requests = QuestionRequests(questions, mode, self.engine.prompt_format)
        remedy = None if skip_bad else _REMEDY
        job = RequestJob(
            requests, predictions.job, questions.sizes, self._record, remedy=remedy, num_workers=num_workers
        )
        return self.begin(job, missing)

    def lines(self, batch: PreparedBatch, batch_idx: int) -> list[dict[str, Any]]:
        """Answers a batch and stores the answers; returns one line per case, for callbacks."""
        return [record["line"] for record in self.step(batch, batch_idx)]

    # -- hooks -----------------------------------------------------------------------------------------------------
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Gives the data module the function that makes its loader.

        Raises:
            ConfigError: the data module has no questions.
        """
        super().setup(trainer, pl_module, stage)
        if stage not in ("test", "predict"):
            return
        data: Any = getattr(trainer, "datamodule", None)
        if not hasattr(data, "answer_loader"):
            raise ConfigError("data", "has no questions; use data_modules.EvaluationDataModule for test and predict")
        data.answer_loader = self.loader

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """From here on the weights are in no file."""
        self._trained_since = time.time()

    def on_predict_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes ``predictions.jsonl``."""
        self._write()

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes ``predictions.jsonl``; logs ``test/iou_acc`` and its groups, from the lines of all processes."""
        if self._write():
            for name, value in summary(read_predictions(self.predictions.path)).items():
                pl_module.log(f"test/{name}", torch.tensor(value), sync_dist=False)

    # -- parts -----------------------------------------------------------------------------------------------------
    @property
    def predictions(self) -> Predictions:
        """The files of this run."""
        if self._predictions is None:
            raise RuntimeError("loader comes before the end")
        return self._predictions

    def _record(self, request: Request, answers: Answers) -> Record:
        assert isinstance(request, QuestionRequest), "made by QuestionRequests"
        completion = answers.completions[0] if answers.completions else Completion("", None, "")
        sample = request.question.sample
        size = self.engine.image_size(sample.width, sample.height)
        line = request.question.line(
            request.start + completion.text,
            self._mode,
            self.engine.codec,
            size,
            completion.num_tokens,
            completion.finish_reason or None,
            answers.first_turn,
        )
        if request.forced and self._questions and self._questions.forced:
            line["intervention"] = request.forced.record(self._questions.forced.kind)
        return {"line": {**line, **({"fault": answers.fault} if answers.fault else {})}}

    def _say_what_is_left(
        self, predictions: Predictions, sizes: Sequence[int], finished: bool, missing: Sequence[int]
    ) -> None:
        total = sum(sizes)
        if finished:
            left_out = f" ({predictions.num_bad} unusable questions skipped)" if predictions.num_bad else ""
            rank_zero_info("%s holds all %d answers%s; nothing to do.", predictions.path, total, left_out)
        elif len(missing) < len(sizes):
            left = sum(sizes[number] for number in missing)
            rank_zero_info("Resuming: %d of %d answers exist.", total - left, total)
        elif predictions.path.is_file():
            rank_zero_info("%s has other settings; it is replaced when all questions are answered.", predictions.path)

    def _say_usage(self, num_unanswered: int) -> None:
        if num_unanswered:
            rank_zero_warn(
                f"{num_unanswered} questions have no answer: they count as unparsed, each with its `fault` in its line"
            )
        if usage := self.engine.summary():
            rank_zero_info("%s", usage)

    def _write(self) -> bool:
        """Writes ``predictions.jsonl``, one line per case; returns whether all questions are answered."""
        predictions, questions = self.predictions, self._questions
        self.finish()
        complete = not self.trainer.is_global_zero or not predictions.missing()
        if self.trainer.is_global_zero and questions is not None and complete:
            if predictions.finished:
                predictions.job.discard()
            else:
                bad = [problem for one in questions.sets for problem in one.problems]
                record = predictions.write(sum(one.num_bad for one in questions.sets), bad)
                left_out = f", {record['num_bad']} unusable questions skipped" if record["num_bad"] else ""
                rank_zero_info("%s: %d answers%s", predictions.path, record["num_cases"], left_out)
                if num := record["num_no_true_box"]:
                    rank_zero_info("%d of them have no true box, and are in no figure", num)
                self._say_usage(record["num_unanswered"])
            if questions.forced and (moved := moves(read_predictions(predictions.path))):
                rank_zero_info("%s", in_one_line(moved))
        complete = bool(self.trainer.strategy.broadcast(complete))
        if not complete:
            rank_zero_warn("some questions have no answer yet (limit_test_batches?); the same command resumes")
        return complete
