"""Data of an evaluation: the questions of one or several sets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from data_modules.base import BySet, CompositeDataModule, HasProcessor
from data_modules.loader import StreamLoader
from kvg.errors import ConfigError
from kvg.evaluation.diagnostics.intervention import KINDS, forced_starts
from kvg.evaluation.records.question_sets import ArtifactSettings, QuestionBatches, check_set, question_batches
from kvg.ranges import check_choice
from kvg.text.prompts import DESCRIBE, PROMPTS

AUTO, PLAIN = "auto", "direct"


AnswerLoader = Callable[[QuestionBatches, str, int, bool], Iterable[Any]]


class EvaluationDataModule(CompositeDataModule):
    """Questions for ``kvg test`` and ``kvg predict``; the same samples as prompts for ``kvg validate``.

    The module that answers sets ``answer_loader``, because it knows which questions are answered already and how a
    question is tokenised. It is a function of the questions, the prompt mode, ``num_workers`` and ``skip_bad``.

    Args:
        test: a folder of shards or a published file, or several by name.
        mode: prompt mode. ``auto`` is the mode that the model was trained with, or ``direct`` if that is unknown, as
            for the published baselines. Evaluation also has ``cot``, ``json`` and ``describe`` (two turns).
        batch_size: questions per batch.
        num_workers: number of processes that make batches.
        skip_bad: whether bad samples are left out and counted; otherwise they raise an error.
        artifacts: settings of the test on corrupted pictures; None for no such test.
        box_unit: see ``CompositeDataModule``; by the names of ``test``.
        boxes_of: see ``CompositeDataModule``; by the names of ``test``.

        intervene: change of the rationales of ``thoughts``, whose start the model then continues: a key of
            ``kvg.evaluation.diagnostics.intervention.KINDS``; None for free answers. ``kvg predict --intervene``.
        thoughts: run whose rationales are changed, see ``intervene``; it has answered the same sets.
        card: whether the traits of the entity stand before the question, as one who looks it up knows them.

    Raises:
        ConfigError: ``test`` is empty, ``mode`` is unknown, or only one of ``intervene`` and ``thoughts`` is set.
    """

    def __init__(
        self,
        test: str | dict[str, str],
        mode: str = AUTO,
        batch_size: int = 8,
        num_workers: int = 0,
        skip_bad: bool = False,
        artifacts: ArtifactSettings | None = None,
        box_unit: BySet = None,
        boxes_of: BySet = "upright",
        intervene: str | None = None,
        thoughts: str | None = None,
        card: bool = False,
    ) -> None:
        self.test = {"test": test} if isinstance(test, str) else dict(test)
        super().__init__(batch_size, num_workers, box_unit=box_unit, boxes_of=boxes_of, sets=self.test)
        if not self.test:
            raise ConfigError("data.test", "names no set; give at least one")
        check_choice("data.mode", mode, (AUTO, *PROMPTS, DESCRIBE))
        self.requested_mode, self.skip_bad, self.artifacts = mode, skip_bad, artifacts
        if (intervene is None) != (thoughts is None):
            raise ConfigError("data.intervene", "set both intervene (what is changed) and thoughts (whose), or neither")
        if intervene is not None:
            check_choice("data.intervene", intervene, KINDS)
        self.intervene, self.thoughts, self.card = intervene, thoughts, card
        self.batches: QuestionBatches | None = None
        self.answer_loader: AnswerLoader | None = None
        self._backbone: HasProcessor | None = None

    def connect(self, backbone: HasProcessor) -> None:
        """See ``CompositeDataModule``; also keeps the backbone, which knows its trained prompt mode."""
        super().connect(backbone)
        self._backbone = backbone

    @property
    def names(self) -> list[str]:
        """Returns the names of the sets, in order."""
        return list(self.test)

    @property
    def trained_mode(self) -> str | None:
        """Returns the prompt mode that the model was trained with; None if unknown."""
        return cast("str | None", getattr(self._backbone, "trained_mode", None))

    @property
    def mode(self) -> str:
        """Returns the prompt mode of the questions."""
        return (self.trained_mode or PLAIN) if self.requested_mode == AUTO else self.requested_mode

    def setup(self, stage: str) -> None:
        """Opens all sets; for questions also reads them once, so that bad input fails early. Lightning calls it twice.

        Raises:
            ConfigError: the mode is ``describe``, and a set has multiple-choice questions.
            DataError: see ``kvg.evaluation.records.question_sets.check_set``.
        """
        if stage not in ("test", "predict"):
            for name, path in self.test.items():
                self.store(path, name)
        elif self.batches is None:
            sets = [check_set(name, path, self.skip_bad, self.reading(name)) for name, path in self.test.items()]
            choices = [one.name for one in sets if one.num_choices]
            if choices and self.requested_mode == DESCRIBE:
                remedy = f"describe is for boxes, but {choices[0]} has multiple-choice questions; use another mode"
                raise ConfigError("data.mode", remedy)
            forced = forced_starts(self.intervene, self.thoughts) if self.intervene and self.thoughts else None
            self.batches = question_batches(sets, self.batch_size, self.artifacts, forced, self.card)

    def test_dataloader(self) -> Iterable[Any]:
        """Makes the loader of this process's share of the questions without answers, of all sets."""
        assert self.batches is not None, "setup must be called first"
        if self.answer_loader is None:
            raise ConfigError("model", "answers no questions; give a module with a PredictionRunner")
        self._log_mode()
        return self.answer_loader(self.batches, self.mode, self.num_workers, self.skip_bad)

    def predict_dataloader(self) -> Iterable[Any]:
        """Returns the same loader as for a test."""
        return self.test_dataloader()

    def val_dataloader(self) -> list[StreamLoader]:
        """Makes a loader for each set."""
        self._log_mode()
        return [self.prompt_loader(path, self.mode, name) for name, path in self.test.items()]

    def _log_mode(self) -> None:
        if self.requested_mode == AUTO and self._backbone is None:
            remedy = "auto needs a model that stores its mode; give the mode that it was trained with, or direct"
            raise ConfigError("data.mode", remedy)
        if self.requested_mode == AUTO and self.trained_mode is None:
            rank_zero_info("The model does not store its prompt mode; the mode direct is used.")
        elif self.requested_mode == AUTO:
            rank_zero_info("The prompt mode is the one that the model was trained with: %s.", self.mode)
        elif self.trained_mode not in (None, self.requested_mode):
            rank_zero_warn(
                f"the prompt mode is {self.requested_mode}, but the model was trained with {self.trained_mode}"
            )
